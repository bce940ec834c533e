package main

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// maxSlugLength is the longest slug derived from a name, in bytes; a number that tells artists apart comes on top.
const maxSlugLength = 80

// asciiFolding writes Latin letters beyond ASCII with ASCII letters, and the ampersand as a word.
var asciiFolding = strings.NewReplacer(
	"à", "a", "á", "a", "â", "a", "ã", "a", "ä", "a", "å", "a", "ā", "a", "ă", "a", "ą", "a", "æ", "ae",
	"ç", "c", "ć", "c", "č", "c", "ċ", "c", "ď", "d", "đ", "d", "ð", "d",
	"è", "e", "é", "e", "ê", "e", "ë", "e", "ē", "e", "ė", "e", "ę", "e", "ě", "e",
	"ğ", "g", "ģ", "g", "ħ", "h",
	"ì", "i", "í", "i", "î", "i", "ï", "i", "ī", "i", "į", "i", "ı", "i",
	"ķ", "k", "ĺ", "l", "ļ", "l", "ľ", "l", "ł", "l",
	"ñ", "n", "ń", "n", "ņ", "n", "ň", "n",
	"ò", "o", "ó", "o", "ô", "o", "õ", "o", "ö", "o", "ø", "o", "ō", "o", "ő", "o", "œ", "oe",
	"ŕ", "r", "ř", "r", "ś", "s", "š", "s", "ş", "s", "ș", "s", "ß", "ss",
	"ť", "t", "ţ", "t", "ț", "t", "þ", "th",
	"ù", "u", "ú", "u", "û", "u", "ü", "u", "ū", "u", "ů", "u", "ű", "u", "ų", "u",
	"ý", "y", "ÿ", "y", "ź", "z", "ž", "z", "ż", "z",
	"&", " and ", "'", "", "’", "",
)

// slugBase derives a slug from the name of an artist: lower-case ASCII letters and digits, single hyphens between them.
// A name without any of these gives "artist".
func slugBase(name string) string {
	var slug strings.Builder
	hyphen := false
	for _, r := range asciiFolding.Replace(strings.ToLower(name)) {
		if unicode.Is(unicode.Mn, r) {
			continue // an accent of its own, after the letter it belongs to
		}
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') {
			hyphen = slug.Len() > 0
			continue
		}
		if slug.Len() >= maxSlugLength-1 {
			break
		}
		if hyphen {
			slug.WriteByte('-')
			hyphen = false
		}
		slug.WriteRune(r)
	}
	if slug.Len() == 0 {
		return "artist"
	}
	return slug.String()
}

// artistID returns the id of the artist of that exact name, who comes into being if need be, with a slug of its own.
// It must be called in a writing transaction: what makes the slug unique is that nobody else writes meanwhile.
func artistID(ctx context.Context, tx *sql.Tx, name string) (int64, error) {
	var id int64
	err := tx.QueryRowContext(ctx, `SELECT id FROM artists WHERE name = ?`, name).Scan(&id)
	if err == nil {
		return id, nil
	}
	if err != sql.ErrNoRows {
		return 0, fmt.Errorf("looking up the artist: %w", err)
	}
	base := slugBase(name)
	slug := base
	for n := 2; ; n++ {
		result, err := tx.ExecContext(ctx, `INSERT INTO artists (slug, name) VALUES (?, ?) ON CONFLICT (slug) DO NOTHING`, slug, name)
		if err != nil {
			return 0, fmt.Errorf("adding the artist: %w", err)
		}
		if added, err := result.RowsAffected(); err != nil {
			return 0, fmt.Errorf("adding the artist: %w", err)
		} else if added == 1 {
			return result.LastInsertId()
		}
		slug = base + "-" + strconv.Itoa(n)
	}
}
