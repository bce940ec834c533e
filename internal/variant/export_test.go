package variant

// Remembered returns how many values of its first field a selector remembers.
func Remembered(s *Selector) int { return len(*s.fields[0].known.Load()) }
