package message

// The two decoders of metadata, which have to agree.
var (
	ScanMetadata   = scanMetadata
	DecodeMetadata = decodeMetadata
)
