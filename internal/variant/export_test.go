package variant

// Remembers reports whether what a value of the first field selects is remembered.
func Remembers(s *Selector, value string) bool {
	_, ok := s.fields[0].found.recall(value)
	return ok
}
