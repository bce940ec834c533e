package field

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/dunglas/httpsfv"
)

// maxIdempotencyKey is how many bytes an idempotency key may have.
const maxIdempotencyKey = 256

// IdempotencyKey returns the value of Idempotency-Key (draft-ietf-httpapi-idempotency-key-header-07 §2.1), "" where there is
// none. It is a String of Structured Fields; without the quotes, as many clients send it, it may have all visible characters
// but quotes, commas and semicolons. There is an error for more than one, an empty one, and one of more than 256 bytes.
func IdempotencyKey(h http.Header) (string, error) {
	values := valuesOf(h, "Idempotency-Key")
	switch {
	case len(values) == 0:
		return "", nil
	case len(values) > 1:
		return "", errors.New("there is more than one Idempotency-Key")
	}
	key, err := idempotencyKey(strings.Trim(values[0], " \t"))
	switch {
	case err != nil:
		return "", err
	case key == "":
		return "", errors.New("the Idempotency-Key is empty")
	case len(key) > maxIdempotencyKey:
		return "", fmt.Errorf("the Idempotency-Key is over %d bytes", maxIdempotencyKey)
	}
	return key, nil
}

func idempotencyKey(value string) (string, error) {
	if strings.HasPrefix(value, `"`) {
		item, err := httpsfv.UnmarshalItem([]string{value})
		if err != nil {
			return "", fmt.Errorf("the Idempotency-Key is not a String of Structured Fields: %w", err)
		}
		key, ok := item.Value.(string)
		if !ok {
			return "", errors.New("the Idempotency-Key is not a String of Structured Fields")
		}
		return key, nil
	}
	for i := range len(value) {
		if b := value[i]; b <= ' ' || b >= 0x7F || strings.IndexByte(`",;`, b) >= 0 {
			return "", fmt.Errorf("the Idempotency-Key has the byte %#02x, which needs quotes around the key, or may not be in it", b)
		}
	}
	return value, nil
}
