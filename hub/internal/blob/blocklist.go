package blob

import (
	"encoding/base64"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
)

// source says where a block of a list is looked for.
type source int

const (
	committed source = iota
	uncommitted
	latest // the uncommitted one, or else the committed one
)

// reference is one line of a block list: an id before base64, and where to look.
type reference struct {
	id   string
	from source
}

// parseBlockID reads the base64 of an id.
func parseBlockID(text string) (string, error) {
	id, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(id) == 0 || len(id) > maxBlockID {
		return "", refuse(http.StatusBadRequest, codeInvalidBlockID, "The specified block ID is invalid. It must be base64 of 1 to %d bytes.", maxBlockID)
	}
	return string(id), nil
}

// parseBlockList reads the body of Put Block List, in the order in which the
// blocks make the blob.
// https://learn.microsoft.com/rest/api/storageservices/put-block-list
func parseBlockList(r io.Reader) ([]reference, error) {
	malformed := refuse(http.StatusBadRequest, codeInvalidXML, "XML specified is not syntactically valid, or is no block list.")
	d := xml.NewDecoder(r)
	var list []reference
	root, ended := false, false
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) && ended {
			return list, nil
		}
		if err != nil {
			if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
				return nil, refuse(http.StatusRequestEntityTooLarge, codeTooLarge, "The block list has more than %d bytes.", tooLarge.Limit)
			}
			if refusal, ok := errors.AsType[*Error](err); ok {
				return nil, refusal
			}
			return nil, malformed
		}
		switch t := token.(type) {
		case xml.StartElement:
			if !root {
				if root = t.Name.Local == "BlockList"; !root {
					return nil, malformed
				}
				continue
			}
			var ref reference
			switch t.Name.Local {
			case "Committed":
				ref.from = committed
			case "Uncommitted":
				ref.from = uncommitted
			case "Latest":
				ref.from = latest
			default:
				return nil, malformed
			}
			if ended {
				return nil, malformed
			}
			text, err := elementText(d)
			if err != nil {
				return nil, malformed
			}
			if ref.id, err = parseBlockID(text); err != nil {
				return nil, err
			}
			if len(list) == maxBlocks {
				return nil, refuse(http.StatusBadRequest, codeBlockListTooLong, "The block list may not contain more than %d blocks.", maxBlocks)
			}
			list = append(list, ref)
		case xml.EndElement: // of the root: elementText takes those of its children
			ended = true
		case xml.CharData:
			if !isSpace(t) {
				return nil, malformed
			}
		}
	}
}

// elementText reads up to the end of an element that holds text only.
func elementText(d *xml.Decoder) (string, error) {
	var text []byte
	for {
		token, err := d.Token()
		if err != nil {
			return "", err
		}
		switch t := token.(type) {
		case xml.CharData:
			if text = append(text, t...); len(text) > 2*maxBlockID {
				return "", errors.New("blob: longer than any block id")
			}
		case xml.EndElement:
			return string(text), nil
		case xml.StartElement:
			return "", errors.New("blob: an element within a block id")
		}
	}
}

func isSpace(text []byte) bool {
	for _, c := range text {
		if c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			return false
		}
	}
	return true
}

// blockListBody is the answer of Get Block List,
// https://learn.microsoft.com/rest/api/storageservices/get-block-list.
type blockListBody struct {
	XMLName     xml.Name   `xml:"BlockList"`
	Committed   *blockBody `xml:"CommittedBlocks"`
	Uncommitted *blockBody `xml:"UncommittedBlocks"`
}

type blockBody struct {
	Blocks []blockLine `xml:"Block"`
}

type blockLine struct {
	Name string
	Size int64
}

func newBlockBody(blocks []block) *blockBody {
	body := &blockBody{}
	for _, b := range blocks {
		body.Blocks = append(body.Blocks, blockLine{base64.StdEncoding.EncodeToString(b.ID), b.Size})
	}
	return body
}
