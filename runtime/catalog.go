package runtime

import (
	"errors"
	"fmt"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/wal"
)

// catalogFrames makes the frames of a catalog: what the ledger and the bus say, cut into pieces of at most so many bytes. The
// first frame holds what is to stand whole in it, too.
func catalogFrames(frameBytes int, ledger, busCatalog wal.Section, whole ...wal.Section) [][]wal.Section {
	frames, room := [][]wal.Section{whole}, frameBytes
	for _, s := range whole {
		room -= len(s.Body)
	}
	for _, s := range []wal.Section{ledger, busCatalog} {
		for body := s.Body; len(body) > 0; {
			if room <= 0 {
				frames, room = append(frames, nil), frameBytes
			}
			n := min(room, len(body))
			last := &frames[len(frames)-1]
			*last = append(*last, wal.Section{Kind: s.Kind, Body: body[:n:n]})
			body, room = body[n:], room-n
		}
	}
	return frames
}

// catalogRead is a catalog as it is read, frame by frame.
type catalogRead struct {
	at          wal.LSN // its first frame; 0 for none
	ledger, bus []byte
}

// take adds a frame of a catalog, the first or one behind that, and reports whether it is one.
func (c *catalogRead) take(fr frame) (bool, error) {
	switch {
	case fr.Kind() == wal.KindCatalog:
		*c = catalogRead{at: fr.LSN()}
	case fr.Kind() != wal.KindCatalogPart:
		return false, nil
	case c.at == 0: // its first frame was not read
		return true, nil
	}
	for i := range fr.Len() {
		into := &c.ledger
		switch fr.Section(i).Kind {
		case sectionBusCatalog:
			into = &c.bus
		case sectionLedger:
		default:
			continue
		}
		body, err := fr.Body(i)
		if err != nil {
			return true, err
		}
		*into = append(*into, body...)
	}
	return true, nil
}

// load makes an empty bus what the catalog says, and returns the ledger.
func (c *catalogRead) load(b *bus.Bus) (*ledger, error) {
	switch {
	case c.at == 0:
		return nil, errors.New("runtime: the log does not begin with a catalog")
	case len(c.ledger) == 0:
		return nil, fmt.Errorf("runtime: the catalog at %s has no ledger", c.at)
	}
	l, err := decodeLedger(c.ledger)
	if err != nil {
		return nil, err
	}
	if err := b.LoadCatalog(c.bus); err != nil {
		return nil, err
	}
	b.Generation(c.at)
	b.Dropped(l.First) // the bus may not have known yet when the catalog was written
	return l, nil
}
