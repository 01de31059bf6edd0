package main

import "testing"

func TestMedianAndQuantile(t *testing.T) {
	cases := []struct {
		values           []float64
		median, p90, p99 float64
	}{
		{nil, 0, 0, 0},
		{[]float64{7}, 7, 7, 7},
		{[]float64{3, 1, 2}, 2, 3, 3},
		{[]float64{4, 1, 3, 2}, 2.5, 4, 4},
		{[]float64{10, 9, 8, 7, 6, 5, 4, 3, 2, 1}, 5.5, 9, 10},
	}
	for _, c := range cases {
		if got := median(c.values); got != c.median {
			t.Errorf("median of %v: %v, want %v", c.values, got, c.median)
		}
		if got := quantile(c.values, 0.9); got != c.p90 {
			t.Errorf("p90 of %v: %v, want %v", c.values, got, c.p90)
		}
		if got := quantile(c.values, 0.99); got != c.p99 {
			t.Errorf("p99 of %v: %v, want %v", c.values, got, c.p99)
		}
	}
}

func TestVerdictComparesWithTheRightNumber(t *testing.T) {
	cases := []struct {
		row  row
		want string
	}{
		{row{Median: 5}, ""},
		{row{Median: 5, Limit: &limit{AtMost, 10}}, "ok"},
		{row{Median: 15, Limit: &limit{AtMost, 10}}, "OVER"},
		{row{Median: 5, Limit: &limit{AtLeast, 10}}, "UNDER"},
		{row{Median: 110, Baseline: 100, Limit: &limit{RatioAtMost, 1.15}}, "ok"},
		{row{Median: 120, Baseline: 100, Limit: &limit{RatioAtMost, 1.15}}, "OVER"},
		{row{Median: 60, Baseline: 100, Limit: &limit{RatioAtLeast, 0.7}}, "UNDER"},
		{row{Median: 80, Baseline: 100, Limit: &limit{RatioAtLeast, 0.7}}, "ok"},
	}
	for _, c := range cases {
		if got := c.row.verdict(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.row, got, c.want)
		}
	}
}
