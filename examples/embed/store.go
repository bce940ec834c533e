package main

import "sync"

type book struct {
	ID    int    `json:"id"`
	Title string `json:"title"`
}

// store is where the service keeps its books.
type store struct {
	mu    sync.RWMutex
	books []book
}

func newStore(titles ...string) *store {
	s := new(store)
	for _, title := range titles {
		s.add(title)
	}
	return s
}

func (s *store) add(title string) book {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := book{ID: len(s.books) + 1, Title: title}
	s.books = append(s.books, b)
	return b
}

func (s *store) get(id int) (book, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if id < 1 || id > len(s.books) {
		return book{}, false
	}
	return s.books[id-1], true
}

func (s *store) all() []book {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return append([]book{}, s.books...)
}
