package discover

import (
	"bufio"
	"compress/gzip"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
)

// Limits of a sitemap (https://www.sitemaps.org/protocol.html#index).
const (
	// MaxLocations is the greatest number of locations in a sitemap.
	MaxLocations = 50_000

	// MaxSitemapBytes is the greatest size of a sitemap, uncompressed.
	MaxSitemapBytes = 50 << 20
)

// The decoder keeps in memory a piece of the sitemap (a tag, a text, a comment) and
// the names of all elements that are open. A sitemap needs 2 KiB and 3 names, with
// extensions a few more.
const (
	maxPieceBytes = 1 << 20
	maxDepth      = 64
)

// Errors that those of [Sitemap] wrap, unless reading itself failed.
var (
	ErrMalformed = errors.New("malformed sitemap")
	ErrTooLarge  = errors.New("sitemap too large")
)

// Entry is a location in a sitemap.
type Entry struct {
	// Location is an absolute URL if the sitemap keeps to the protocol, which is
	// not checked. It has no white space around it and is not empty.
	Location string

	// Sitemap says that the location is that of a further sitemap.
	Sitemap bool
}

// Sitemap reads a sitemap, or an index of sitemaps, in the XML form of
// https://www.sitemaps.org/protocol.html, compressed with gzip or not, and yields
// its locations in their order, while it reads. What has been read can't be read
// again, so the sequence can be used once.
//
// An error ends the sequence. It wraps [ErrMalformed] or [ErrTooLarge], or what the
// reader or the decompression returned, and names the line. What was yielded before
// it stands. A sitemap of more than [MaxLocations] or [MaxSitemapBytes] is too large,
// and so is one with a single piece of text or mark-up, or elements within elements,
// beyond all reason. Memory is bounded by that, however far the input is compressed.
//
// Namespaces, attributes and elements of extensions are ignored; so are locations
// without text. Locations are not compared with each other.
//
// An index may name itself. Whoever follows it has to bound that.
func Sitemap(r io.Reader) iter.Seq2[Entry, error] {
	return sitemapWithin(r, MaxSitemapBytes)
}

// sitemapWithin is Sitemap with another limit than MaxSitemapBytes.
func sitemapWithin(r io.Reader, maxBytes int) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		in, err := unpack(r, maxBytes)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		// Only the five entities of XML itself are known. The decoder doesn't read
		// a document type, so that there is nothing that could expand.
		s := sitemap{in: in, decoder: xml.NewDecoder(in)}
		s.decoder.CharsetReader = unicodeOnly
		for locations := 0; ; {
			location, err := s.next()
			switch {
			case err == io.EOF:
				return
			case err == nil && locations == MaxLocations:
				err = s.at(ErrTooLarge, "more than %d locations", MaxLocations)
			}
			if err != nil {
				yield(Entry{}, err)
				return
			}
			locations++
			if !yield(Entry{Location: location, Sitemap: s.entry == "sitemap"}, nil) {
				return
			}
		}
	}
}

// unpack looks into the first bytes, for gzip and for a byte order mark.
func unpack(r io.Reader, maxBytes int) (*input, error) {
	buffered := bufio.NewReader(r)
	if magic, _ := buffered.Peek(2); string(magic) == "\x1f\x8b" {
		uncompressed, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, fmt.Errorf("reading the sitemap, line 1: %w", err)
		}
		buffered = bufio.NewReader(uncompressed)
	}
	in := &input{buffered: buffered, maxBytes: maxBytes}
	if mark, _ := buffered.Peek(3); string(mark) == "\uFEFF" {
		_, _ = buffered.Discard(len(mark))
		in.total = len(mark)
	}
	return in, nil
}

// unicodeOnly reads the encodings that are UTF-8 by another name than "UTF-8".
func unicodeOnly(encoding string, text io.Reader) (io.Reader, error) {
	switch strings.ToLower(encoding) {
	case "utf8", "us-ascii", "ascii":
		return text, nil
	}
	return nil, errors.New("a sitemap is in UTF-8")
}

// sitemap is a sitemap that is being read.
type sitemap struct {
	in      *input
	decoder *xml.Decoder

	entry      string // the element that has a location, "url" or "sitemap"; "" before the root
	depth      int    // how many elements are open
	inEntry    bool
	inLocation bool
	location   strings.Builder
}

// next returns the next location. The error is [io.EOF] at the end of the sitemap.
func (s *sitemap) next() (string, error) {
	for {
		s.in.piece = 0
		token, err := s.decoder.Token()
		if err != nil {
			return "", s.failed(err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			if err := s.start(token.Name.Local); err != nil {
				return "", err
			}
		case xml.CharData:
			if s.inLocation && s.depth == 3 {
				s.location.Write(token)
			}
		case xml.EndElement:
			s.depth--
			if s.depth != 2 || !s.inLocation {
				continue
			}
			s.inLocation = false
			if location := strings.TrimSpace(s.location.String()); location != "" {
				return location, nil
			}
		}
	}
}

// start notes where in the sitemap an element is. The <loc> of an extension, as of
// an image in a <url>, is deeper than that of the entry.
func (s *sitemap) start(name string) error {
	s.depth++
	switch s.depth {
	case 1:
		switch {
		case s.entry != "":
			return s.at(ErrMalformed, "<%s> behind the end", name)
		case name == "urlset":
			s.entry = "url"
		case name == "sitemapindex":
			s.entry = "sitemap"
		default:
			return s.at(ErrMalformed, "<%s> is neither <urlset> nor <sitemapindex>", name)
		}
	case 2:
		s.inEntry = name == s.entry
	case 3:
		s.inLocation = s.inEntry && name == "loc"
		s.location.Reset()
	case maxDepth:
		return s.at(ErrTooLarge, "%d elements within each other", maxDepth)
	}
	return nil
}

// failed returns what an error of the decoder means.
func (s *sitemap) failed(err error) error {
	var syntax *xml.SyntaxError
	switch {
	case s.in.tooLarge != "":
		return s.at(ErrTooLarge, "%s", s.in.tooLarge)
	case s.in.err != nil:
		line, _ := s.decoder.InputPos()
		return fmt.Errorf("reading the sitemap, line %d: %w", line, s.in.err)
	case err == io.EOF && s.entry == "":
		return s.at(ErrMalformed, "there is neither <urlset> nor <sitemapindex>")
	case errors.As(err, &syntax):
		return fmt.Errorf("%w: line %d: %s", ErrMalformed, syntax.Line, syntax.Msg)
	case err == io.EOF:
		return err
	}
	return s.at(ErrMalformed, "%w", err)
}

// at returns an error of a kind that happened where the decoder is.
func (s *sitemap) at(kind error, format string, arguments ...any) error {
	line, _ := s.decoder.InputPos()
	return fmt.Errorf("%w: line %d: %w", kind, line, fmt.Errorf(format, arguments...))
}

// input hands bytes to the decoder, which reads one by one where it can, and stops
// it in the middle of what is too large.
type input struct {
	buffered *bufio.Reader
	maxBytes int    // of the sitemap
	total    int    // bytes of the sitemap so far
	piece    int    // bytes of the current token
	tooLarge string // what is
	err      error  // of reading, but not the end
}

func (in *input) ReadByte() (byte, error) {
	b, err := in.buffered.ReadByte()
	if err != nil {
		if err != io.EOF {
			in.err = err
		}
		return 0, err
	}
	in.total++
	in.piece++
	switch {
	case in.total > in.maxBytes:
		in.tooLarge = fmt.Sprintf("more than %d bytes", in.maxBytes)
	case in.piece > maxPieceBytes:
		in.tooLarge = fmt.Sprintf("a tag or text of more than %d bytes", maxPieceBytes)
	default:
		return b, nil
	}
	return 0, ErrTooLarge
}

// Read is what a decoder uses that was told the encoding.
func (in *input) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	b, err := in.ReadByte()
	if err != nil {
		return 0, err
	}
	p[0] = b
	return 1, nil
}
