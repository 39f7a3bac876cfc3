package bus

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/sidestream-dev/sidestream/wal"
)

// StoreFit is what a repair of the log means for a partition in the topic store.
type StoreFit struct {
	Topic     TopicID
	Partition int
	Lost      []OffsetRange // that the log says are in the store, or in what is removed of the log, and are not there
	Beyond    []string      // files, within the store's folder, that the log does not know
	Cut       string        // the file of which it knows less than is there; "" for none
}

// OffsetRange is the offsets from From up to, without, To.
type OffsetRange struct{ From, To Offset }

// FitStore makes what a repaired log says of the topic store what is there. The log may be older than the files, so that some
// have gone since, and others have come; or newer, so that what was moved out lies in frames that are removed. It is called
// once Dropped was, instead of OpenStore, and changes no file.
func (b *Bus) FitStore() (fits []StoreFit, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.store == nil {
		return nil, nil
	}
	for _, id := range sortedKeys(b.topics) {
		t := b.topics[id]
		for _, p := range t.parts {
			fit, err := b.fitPart(t, p)
			if err != nil {
				return nil, err
			}
			if len(fit.Lost)+len(fit.Beyond) > 0 || fit.Cut != "" {
				fits = append(fits, fit)
			}
		}
	}
	unknown, err := b.unknownTopics()
	return append(fits, unknown...), err
}

// unknownTopics finds the files of topics that the log does not know.
func (b *Bus) unknownTopics() (fits []StoreFit, err error) {
	names, err := b.store.Disk.List(b.store.Dir)
	if err != nil {
		return nil, fmt.Errorf("bus: topic store: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		id := TopicID(0)
		if _, err := fmt.Sscanf(name, "%d", &id); err != nil || fmt.Sprint(id) != name || b.topics[id] != nil {
			continue
		}
		parts, err := b.store.Disk.List(b.store.topicDir(id))
		if err != nil {
			return nil, fmt.Errorf("bus: topic store: %w", err)
		}
		fit := StoreFit{Topic: id}
		for _, part := range slices.Sorted(maps.Keys(parts)) {
			files, err := b.store.Disk.List(filepath.Join(b.store.topicDir(id), part))
			if err != nil {
				return nil, fmt.Errorf("bus: topic store: %w", err)
			}
			for _, f := range slices.Sorted(maps.Keys(files)) {
				fit.Beyond = append(fit.Beyond, filepath.Join(name, part, f))
			}
		}
		fits = append(fits, fit)
	}
	return fits, nil
}

// fitPart is FitStore of a partition. The caller holds b.mu.
func (b *Bus) fitPart(t *topic, p *partition) (fit StoreFit, err error) {
	d := b.store
	fit.Topic, fit.Partition = t.id, p.number
	was := p.stored
	was.Topic, was.Partition = t.id, p.number
	names, err := d.Disk.List(d.partDir(t.id, p.number))
	if err != nil {
		return fit, fmt.Errorf("bus: topic store: %w", err)
	}
	var starts []wal.LSN
	for _, name := range slices.Sorted(maps.Keys(names)) {
		start, ok := isSegmentName(name)
		file := filepath.Join(fmt.Sprint(t.id), fmt.Sprint(p.number), name)
		switch {
		case !ok:
		case was.First == 0 || start < was.First || start > was.Last:
			fit.Beyond = append(fit.Beyond, file)
		default:
			starts = append(starts, start)
			if start == was.Last && names[name] > was.Size {
				fit.Cut = file
			}
		}
	}
	if was.First == 0 {
		return fit, nil
	}
	now, segs, err := d.longest(was, starts, p.over)
	if err != nil {
		return fit, err
	}
	first := p.first
	p.stored, p.segs = now, segs
	for _, s := range starts { // of no use where one behind them is missing, or the newest
		if now.First == 0 || s < now.First {
			fit.Beyond = append(fit.Beyond, filepath.Join(fmt.Sprint(t.id), fmt.Sprint(p.number), segmentName(s)))
		}
	}
	if len(b.gens) == 0 {
		return fit, nil
	}
	log := b.gens[0].topics[t.id]
	if !log.exists {
		return fit, nil
	}
	next := log.Next[p.number]
	if now.First == 0 { // nothing of it is of use
		fit.Cut, p.stored.From = "", next
	}
	if from := max(first, p.stored.From); from > first {
		fit.Lost = append(fit.Lost, OffsetRange{first, from})
		p.drop(from)
	}
	if now.First != 0 && now.Covered < b.gens[0].first && now.Next < next {
		fit.Lost = append(fit.Lost, OffsetRange{now.Next, next})
		p.addGap(gap{From: now.Next, To: next, Bytes: log.Bytes[p.number]})
	}
	return fit, nil
}

// longest returns the part of the store that is there: the newest segment and those before it, without a hole.
func (d *storeDir) longest(part StorePart, starts []wal.LSN, over func(Offset) Offset) (StorePart, []*storeSegment, error) {
	for _, start := range starts {
		try := part
		try.First = start
		segs, err := d.openPart(try, over, false)
		if damage := (*SegmentError)(nil); errors.As(err, &damage) {
			continue
		}
		if err != nil {
			return part, nil, err
		}
		try.From = max(try.From, segs[0].base)
		return try, segs, nil
	}
	return StorePart{Topic: part.Topic, Partition: part.Partition}, nil, nil
}

// addGap notes offsets that no record has any more. Nobody else has the partition yet.
func (p *partition) addGap(g gap) {
	for _, o := range p.gaps {
		if o.From <= g.From && g.From < o.To {
			g.From = o.To
		}
		if o.From < g.To && g.To <= o.To {
			g.To = o.From
		}
	}
	if g.From >= g.To {
		return
	}
	i, _ := slices.BinarySearchFunc(p.gaps, g, func(a, b gap) int { return int(int64(a.From) - int64(b.From)) })
	p.gaps = slices.DeleteFunc(slices.Insert(slices.Clone(p.gaps), i, g), func(o gap) bool {
		return o != g && g.From <= o.From && o.To <= g.To // within it
	})
}
