package discover

// SitemapWithin is Sitemap with another limit than MaxSitemapBytes.
var SitemapWithin = sitemapWithin
