package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"runtime"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// schemaVersion is what PRAGMA user_version says of a database with this schema.
const schemaVersion = 1

// schema makes an empty database. AUTOINCREMENT keeps the id of a deleted track from naming another one later. The
// number of tracks of an artist is kept up by triggers, because the counts are on pages that every new track renders.
const schema = `
CREATE TABLE artists (
	id     INTEGER PRIMARY KEY AUTOINCREMENT,
	slug   TEXT NOT NULL UNIQUE,
	name   TEXT NOT NULL UNIQUE,
	tracks INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE tracks (
	id     INTEGER PRIMARY KEY AUTOINCREMENT,
	name   TEXT NOT NULL,
	artist INTEGER NOT NULL REFERENCES artists (id)
);
CREATE INDEX tracks_by_artist ON tracks (artist);
CREATE TRIGGER track_added AFTER INSERT ON tracks BEGIN
	UPDATE artists SET tracks = tracks + 1 WHERE id = NEW.artist;
END;
CREATE TRIGGER track_removed AFTER DELETE ON tracks BEGIN
	UPDATE artists SET tracks = tracks - 1 WHERE id = OLD.artist;
END;
CREATE TRIGGER track_moved AFTER UPDATE OF artist ON tracks BEGIN
	UPDATE artists SET tracks = tracks - 1 WHERE id = OLD.artist;
	UPDATE artists SET tracks = tracks + 1 WHERE id = NEW.artist;
END;
CREATE TABLE departures (
	track  INTEGER NOT NULL,
	artist INTEGER NOT NULL REFERENCES artists (id),
	at     INTEGER NOT NULL,
	PRIMARY KEY (track, artist)
) WITHOUT ROWID;
CREATE INDEX departures_by_age ON departures (at);
PRAGMA user_version = 1;
`

const (
	// busyTimeout is how long a statement waits for another process that writes.
	busyTimeout = 30 * time.Second
	// openPause is the time between two attempts to open a database that another process is making.
	openPause = 20 * time.Millisecond
)

// store keeps tracks and artists in an SQLite file that many processes may share. It is safe for concurrent use.
type store struct {
	// read serves queries; SQLite refuses writes on it.
	read *sql.DB
	// write has one connection, so that the writers of this process queue up in order here, and only processes compete
	// for the lock of the file. Its transactions take that lock at their beginning: one that read first and wrote later
	// could fail because of another writer in between.
	write *sql.DB
	// memory is how long departures are remembered; see change.
	memory time.Duration
}

// openStore opens the database at path and makes it, with its seeded content, if it is new. Several processes may do so
// at once: one makes it, the others wait. memory is the longest time between the first and the last run of one and the
// same request.
func openStore(ctx context.Context, path string, memory time.Duration) (*store, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("opening the database %s: %w", path, err)
	}
	s := &store{memory: memory}
	if s.write, err = openPool(absolute, 1, url.Values{"_txlock": {"immediate"}, "_foreign_keys": {"on"}}); err != nil {
		return nil, err
	}
	if s.read, err = openPool(absolute, 2*runtime.GOMAXPROCS(0)+2, url.Values{"_query_only": {"on"}}); err != nil {
		return nil, errors.Join(err, s.write.Close())
	}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the database %s: %w", path, err), s.close())
	}
	return s, nil
}

// openPool makes a pool of at most connections connections to the database at path. It opens none of them yet.
func openPool(path string, connections int, parameters url.Values) (*sql.DB, error) {
	parameters.Set("_busy_timeout", fmt.Sprint(busyTimeout.Milliseconds()))
	// In WAL mode this keeps what was committed through a crash of the process; only a crash of the machine may lose the
	// last moments.
	parameters.Set("_synchronous", "NORMAL")
	name := url.URL{Scheme: "file", Path: path, RawQuery: parameters.Encode()}
	pool, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, fmt.Errorf("opening the database %s: %w", path, err)
	}
	pool.SetMaxOpenConns(connections)
	pool.SetMaxIdleConns(connections)
	return pool, nil
}

// prepare switches the database to WAL and makes schema and content unless they are there.
func (s *store) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, busyTimeout)
	defer cancel()
	for {
		err := s.makeSchema(ctx)
		if err == nil || !busy(err) {
			return err
		}
		// SQLite does not wait by itself for another process that is just switching the file to WAL.
		select {
		case <-ctx.Done():
			return err
		case <-time.After(openPause):
		}
	}
}

func (s *store) makeSchema(ctx context.Context) error {
	if _, err := s.write.ExecContext(ctx, `PRAGMA journal_mode = WAL`); err != nil {
		return fmt.Errorf("switching to the write-ahead log: %w", err)
	}
	return s.transaction(ctx, func(tx *sql.Tx) error {
		var version int
		if err := tx.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version); err != nil {
			return fmt.Errorf("reading the schema version: %w", err)
		}
		switch version {
		case schemaVersion:
			return nil
		case 0:
			if _, err := tx.ExecContext(ctx, schema); err != nil {
				return fmt.Errorf("making the schema: %w", err)
			}
			return seed(ctx, tx)
		default:
			return fmt.Errorf("the schema has version %d, this program knows version %d", version, schemaVersion)
		}
	})
}

// busy reports whether err says that another connection holds the lock that the statement needs.
func busy(err error) bool {
	var failure *sqlite.Error
	if !errors.As(err, &failure) {
		return false
	}
	primary := failure.Code() & 0xff
	return primary == sqlite3.SQLITE_BUSY || primary == sqlite3.SQLITE_PROTOCOL
}

// transaction runs do in a writing transaction, which is committed unless do fails.
func (s *store) transaction(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("beginning a transaction: %w", err)
	}
	if err := do(tx); err != nil {
		if undo := tx.Rollback(); undo != nil && !errors.Is(undo, sql.ErrTxDone) {
			return errors.Join(err, fmt.Errorf("rolling back: %w", undo))
		}
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("committing: %w", err)
	}
	return nil
}

// close closes the database.
func (s *store) close() error {
	return errors.Join(s.read.Close(), s.write.Close())
}
