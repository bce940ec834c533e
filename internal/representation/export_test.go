package representation

// The bounds of the table of shapes.
const (
	MaxShapes   = maxShapes
	MaxShapeKey = maxShapeKey
)

// ShapeCount returns the number of shapes in the table.
func ShapeCount() int {
	shapes.mu.Lock()
	defer shapes.mu.Unlock()
	return len(shapes.shapes)
}

// SharesShape says whether two representations have the same shape.
func SharesShape(a, b *Representation) bool { return a.shape == b.shape }
