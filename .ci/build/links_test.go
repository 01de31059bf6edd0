package main

import (
	"slices"
	"testing"

	"capsem/personalities"
)

func TestLinksAreThePersonalitiesOfTheTable(t *testing.T) {
	want := make([]string, 0, len(personalities.Table()))
	for _, p := range personalities.Table() {
		want = append(want, p.Link)
	}
	if got := slices.Sorted(slices.Values(linkNames)); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Errorf("links %v, table %v", got, want)
	}
}
