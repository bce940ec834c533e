package main

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// seededTracks is how many tracks a new database holds; their ids are 1 to seededTracks.
const seededTracks = 1000

// artistNames are the artists of a new database, one per line. Some hold characters that HTML, JSON or a slug must treat
// with care.
const artistNames = `The Paper Lanterns
Ada Vance
Harbour & Sons
Björn Ekström
Midnight Cartographers
Núria Valls
O'Rourke's Orchestra
The Slow Comets
Juniper Hale
Copper Weather
Zoë Marchetti
The Velvet Abacus
Salt & Smoke
Ivo Kovačević
Glass Meridian
Étienne Duvall
The Winter Postmen
Marigold Pike
Northbound Ferry
Łucja Wrońska
The Accidental Choir
Silas Boone
Fern & Flint
Señor Calavera
Electric Orchard
Maeve O'Connell
The Quiet Engines
Tomáš Havel
Lemon District
Wren Castellane
The Borrowed Umbrellas
Ásta Jónsdóttir
Static & Bloom
Rufus Delacroix
Hollow Lighthouse
Mei-Lin Tan
The Tin Horizons
Pascal Grünwald
Cinder Avenue
Odessa Finch
The Last Tramway
Søren Holm
Brass & Feather
Imani Okafor
Lantern Street Quartet
João Tavares
The Folding Mountains
Beatrix Lowe
Seven < Eleven
Anouk Verhoeven
The Marble Foxes
Cormac Daly
Violet Parallax
Renée Chartier
"Lucky" Lou Hansen
The Tidal Clocks
Dalia Benítez
Ash & Almond
Kofi Mensah
Paper Satellites
Ingrid Sæther
The Gentle Avalanche
Théo Lambert
Saffron Radio
Nils Öberg
The Hidden Staircase
Clara Windsor
Moth & Candle
Esteban Núñez
Blue Hour Collective
Zsófia Kárpáti
The Wandering Pilots
Hazel Thorne
River > Road
Giulia Ferràri
The Sunday Machinists
Amadou Diallo
Velour & Vine
Petra Žižková
Golden Appendix
Linus Falk
The Rusted Crowns
Priya Raman
Echo & Ember
François Béranger
Tall Grass Theory
Mirela Ionescu
The Crooked Spires
Jonah Whitlock
Night Market
Elif Yıldız
The Patient Gardeners
Casimir Nowak
Honey & Hail
Aoife Brennan
Distant Typewriters
Luka Petrović
The Second Sunrise
Theodora Quill
Polar Postcards`

// A seeded track is named by an opening and an ending. The lengths of the two lists share few factors, so that the names
// of the first seededTracks tracks all differ.
const (
	trackOpenings = `Blue,Silver,Burning,The Last,Midnight,Hollow,Golden,Paper,Broken,Electric,Waiting for the,Velvet,Winter,` +
		`Lost & Found,Café,Don't Wake the,Running from the,Crimson,Dancing with the,Señorita's,Silent,Another,Letters to the,` +
		`Nobody's,Summer,Under the,Beyond the,Wild,Little,Distant,Sleeping,Half a,Goodbye,Übermorgen,Counting the,Secret,` +
		`Seven,Falling,Every,Home to the`
	trackEndings = `River,Lanterns,Highway,Morning,Heart,Station,Harbour,Waltz,Rain,Machine,Mirror,Shadows,Ocean,Window,Carousel,` +
		`Fire,Orchard,Telephone,Stranger,Moon,Avenue,Ghosts,Satellite,Garden,Train,Thunder,Promise,Mountain,Roses,Lighthouse,` +
		`Clockwork,Horizon,Serenade,Cathedral,Feathers,Island,Postcard,Kitchen,Constellation,Bridge,Engine,Sparrows,Tide,` +
		`Umbrella,Parade,Echoes,Summer's End,Rock & Roll,Déjà Vu,Snow`
)

// seed inserts the artists and tracks of a new database. It inserts the same rows every time, so that databases made by
// different processes are equal.
func seed(ctx context.Context, tx *sql.Tx) error {
	artists := strings.Split(artistNames, "\n")
	for _, name := range artists {
		if _, err := artistID(ctx, tx, name); err != nil {
			return err
		}
	}
	insert, err := tx.PrepareContext(ctx, `INSERT INTO tracks (id, name, artist) SELECT ?, ?, id FROM artists WHERE name = ?`)
	if err != nil {
		return fmt.Errorf("preparing to seed the tracks: %w", err)
	}
	defer insert.Close()
	for id := 1; id <= seededTracks; id++ {
		// Neighbours belong to different artists, so that the newest tracks are a mixed list.
		if _, err := insert.ExecContext(ctx, id, trackName(id), artists[(id-1)%len(artists)]); err != nil {
			return fmt.Errorf("seeding track %d: %w", id, err)
		}
	}
	return nil
}

// trackName is the name of the seeded track id.
func trackName(id int) string {
	openings, endings := strings.Split(trackOpenings, ","), strings.Split(trackEndings, ",")
	n := id - 1
	return openings[n%len(openings)] + " " + endings[(n+n/len(openings))%len(endings)]
}
