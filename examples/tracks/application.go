package main

import (
	"context"
	"embed"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
)

//go:embed assets
var assets embed.FS

// assetTypes are the files served below /assets/ and their Content-Type.
var assetTypes = map[string]string{
	"app.css":   "text/css; charset=utf-8",
	"cover.png": "image/png",
}

// The routes of a track and of an artist. What else could be an id, as 007, pathID tells apart.
const (
	onTrack  = "/tracks/{id:[0-9]+}"
	onArtist = "/artists/{slug:[a-z0-9-]+}"
)

// applicationOptions are what an operator may choose about the application.
type applicationOptions struct {
	// maxBody limits the body of a request, in bytes.
	maxBody int64
	// workDelay is slept by writing handlers between the change of the database and the response.
	workDelay time.Duration
	// renderDelay is slept by GET handlers between reading the database and the response.
	renderDelay time.Duration
	// logger receives what went wrong.
	logger *slog.Logger
}

// application is the web application: ordinary pages and forms over a store. It knows of the cache only where a write
// names the pages or groups that it changed, and answers the same with and without one.
type application struct {
	applicationOptions
	store *store
	pages pages
}

// newApplication returns the handler of the application. It is safe for concurrent use, as s is.
func newApplication(s *store, options applicationOptions) (http.Handler, error) {
	parsed, err := parsePages()
	if err != nil {
		return nil, err
	}
	a := &application{applicationOptions: options, store: s, pages: parsed}

	sameOrigin := http.NewCrossOriginProtection()
	sameOrigin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.fail(w, r, wantsJSON(r), &refusal{http.StatusForbidden, "Changes are accepted from pages of this site only."})
	}))

	router := chi.NewRouter()
	router.Use(sameOrigin.Handler, middleware.GetHead)
	router.NotFound(func(w http.ResponseWriter, r *http.Request) { a.fail(w, r, wantsJSON(r), errNotFound) })

	router.Get("/", a.page("home.html", a.readTotals))
	router.Get("/tracks", a.page("tracks.html", a.readNewest))
	router.Get("/tracks.json", a.document(a.readNewest))
	router.Get("/tracks/new", a.page("form.html", a.readNewForm))
	router.Get(onTrack, a.page("track.html", a.readTrack))
	router.Get(onTrack+".json", a.document(a.readTrack))
	router.Get(onTrack+"/edit", a.page("form.html", a.readEditForm))
	router.Get("/artists", a.page("artists.html", a.readArtists))
	router.Get("/artists.json", a.document(a.readArtists))
	router.Get(onArtist, a.page("artist.html", a.readArtistPage))
	router.Get(onArtist+".json", a.document(a.readArtist))
	for name, contentType := range assetTypes {
		content, err := assets.ReadFile("assets/" + name)
		if err != nil {
			return nil, fmt.Errorf("reading an asset: %w", err)
		}
		router.Get("/assets/"+name, asset(content, contentType))
	}

	router.Post("/tracks", a.postTracks)
	router.Put(onTrack, a.putTrack)
	router.Delete(onTrack, a.deleteTrack)
	router.Post(onTrack, a.postTrack)
	router.Put(onArtist, a.putArtist)
	router.Post(onArtist, a.postArtist)
	router.Post(onArtist+"/merge", a.mergeArtist)
	return router, nil
}

// reader reads what a resource shows. Whatever it returns, every representation of the resource is made from it.
type reader func(r *http.Request) (any, error)

// page serves what read returns through a template.
func (a *application) page(name string, read reader) http.HandlerFunc {
	return a.get(read, false, func(w http.ResponseWriter, r *http.Request, content any) {
		a.writePage(w, r, http.StatusOK, name, content)
	})
}

// document serves what read returns as JSON.
func (a *application) document(read reader) http.HandlerFunc {
	return a.get(read, true, func(w http.ResponseWriter, r *http.Request, content any) {
		a.writeJSON(w, r, http.StatusOK, content)
	})
}

// get serves what read returns by means of write, and says in which groups it is. An error is told as JSON if json is set,
// as a page otherwise.
func (a *application) get(read reader, json bool, write func(http.ResponseWriter, *http.Request, any)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		content, err := read(r)
		pause(r.Context(), a.renderDelay)
		if err != nil {
			a.fail(w, r, json, err)
			return
		}
		if names, ok := content.(grouped); ok {
			setGroups(w, groupsField, names.groups())
		}
		write(w, r, content)
	}
}

func (a *application) readTotals(r *http.Request) (any, error)  { return a.store.totals(r.Context()) }
func (a *application) readNewest(r *http.Request) (any, error)  { return a.store.newest(r.Context()) }
func (a *application) readArtists(r *http.Request) (any, error) { return a.store.artists(r.Context()) }

func (a *application) readArtist(r *http.Request) (any, error) {
	return a.store.artist(r.Context(), r.PathValue("slug"))
}

func (a *application) readArtistPage(r *http.Request) (any, error) {
	found, err := a.store.artist(r.Context(), r.PathValue("slug"))
	return artistPage{artistTracks: found, NewName: found.Name}, err
}

func (a *application) readTrack(r *http.Request) (any, error) {
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	return a.store.track(r.Context(), id)
}

func (a *application) readNewForm(*http.Request) (any, error) { return form{}, nil }

func (a *application) readEditForm(r *http.Request) (any, error) {
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	t, err := a.store.track(r.Context(), id)
	return form{ID: t.ID, Name: t.Name, Artist: t.Artist, ArtistSlug: t.ArtistSlug}, err
}

// pathID returns the id in the path. Every track has one path: another spelling of its number, as 007, is not found.
func pathID(r *http.Request) (int64, error) {
	segment := r.PathValue("id")
	id, err := strconv.ParseInt(segment, 10, 64)
	if err != nil || id < 1 || strconv.FormatInt(id, 10) != segment {
		return 0, errNotFound
	}
	return id, nil
}

// asset serves a file.
func asset(content []byte, contentType string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { write(w, http.StatusOK, contentType, content) }
}

// pause sleeps for d or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
