package bus

import (
	"testing"

	"github.com/sidestream-dev/sidestream/wal"
)

// TestPartsBehindADrop reads a part, lets what follows it be dropped, and reads one behind that: the reader must not go over
// what is gone.
func TestPartsBehindADrop(t *testing.T) {
	log := &memLog{}
	for range 9 {
		log.append(wal.Section{Kind: SectionRecords})
	}
	log.setDurable(log.last())
	p := &partReader{}
	for _, lsn := range []wal.LSN{2, 3, 7, 9} {
		if lsn == 7 {
			log.drop(6)
		}
		f, err := p.frame(log, lsn)
		if err != nil {
			t.Fatalf("part %d: %v", lsn, err)
		}
		if f.LSN() != lsn {
			t.Errorf("part %d: frame %d was read", lsn, f.LSN())
		}
	}
	if _, err := (&partReader{}).frame(log, 5); err == nil {
		t.Error("a part that was dropped is read")
	}
	if err := p.close(); err != nil {
		t.Error(err)
	}
}
