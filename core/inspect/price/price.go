// Package price knows what tokens cost: an embedded table, dated, and over it the owner's own. All arithmetic is in whole numbers.
package price

import (
	"bytes"
	_ "embed" // for prices.toml
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"strings"
	"sync"

	"github.com/pelletier/go-toml/v2"

	"capsem/core/fault"
	"capsem/core/inspect/model"
)

//go:embed prices.toml
var embedded []byte

// Nano is money: a billionth of a dollar.
type Nano int64

const (
	// Dollar is one.
	Dollar Nano = 1_000_000_000
	// maxTable bounds a table, in bytes; maxPrice a price of a million tokens, in dollars.
	maxTable, maxPrice = 1 << 20, 1000
	// millionths of a dollar per million tokens are picodollars per token.
	decimals = 6
)

// Price is what the tokens of a model cost, in picodollars for each: a million of them cost as many microdollars.
type Price struct {
	Input, Output, CacheRead, CacheWrite5m, CacheWrite1h int64
	// Above, if not nil, holds for prompts of more than AboveTokens.
	Above       *Price
	AboveTokens int64
}

// entry is a price as it is written.
type entry struct {
	Provider string   `toml:"provider"`
	Models   []string `toml:"models"`
	rates
	Above *struct {
		Tokens int64 `toml:"tokens"`
		rates
	} `toml:"above"`
}

type rates struct {
	Input        string `toml:"input"`
	Output       string `toml:"output"`
	CacheRead    string `toml:"cache_read"`
	CacheWrite5m string `toml:"cache_write_5m"`
	CacheWrite1h string `toml:"cache_write_1h"`
}

// Table is what is known.
type Table struct {
	// Date is of what day the embedded table is.
	Date string
	of   map[string]*Price // provider, slash, model
}

// Embedded is the table in the program.
var Embedded = sync.OnceValues(func() (*Table, error) {
	t := &Table{of: map[string]*Price{}}
	return t, t.read("prices.toml", embedded)
})

// Load reads the embedded table and, over it, the owner's at path; there may be none.
func Load(path string) (*Table, error) {
	base, err := Embedded()
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return base, nil
	}
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "cannot read the prices in %s: %s", path, err)
	}
	defer f.Close()
	var text bytes.Buffer
	if n, err := text.ReadFrom(io.LimitReader(f, maxTable+1)); err != nil || n > maxTable {
		return nil, fault.New(fault.Invalid, "%s cannot be read, or is longer than 1 MiB: that is no table of prices", path)
	}
	t := &Table{of: maps.Clone(base.of)}
	err = t.read(path, text.Bytes())
	t.Date = base.Date
	return t, err
}

func (t *Table) read(name string, text []byte) error {
	var file struct {
		Date  string  `toml:"date"`
		Price []entry `toml:"price"`
	}
	if err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&file); err != nil {
		return fault.Wrap(err, fault.Invalid, "%s: %.200s", name, strings.TrimPrefix(err.Error(), "toml: "))
	}
	t.Date = file.Date
	for i := range file.Price {
		e := &file.Price[i]
		p, err := e.price()
		if err != nil {
			return fault.Wrap(err, fault.Invalid, "%s: price %d (%.60s): %s", name, i+1, strings.Join(e.Models, ", "), err).
				WithHint("a price is a text such as \"1.25\": dollars for a million tokens")
		}
		for _, m := range e.Models {
			t.of[e.Provider+"/"+m] = p
		}
	}
	return nil
}

func (e *entry) price() (*Price, error) {
	if e.Provider == "" || len(e.Models) == 0 {
		return nil, errors.New("provider and models are needed")
	}
	p, err := e.parse()
	if err == nil && e.Above != nil {
		if p.AboveTokens = e.Above.Tokens; p.AboveTokens <= 0 {
			return nil, errors.New("above.tokens must be more than 0")
		}
		p.Above, err = e.Above.parse()
	}
	return p, err
}

// parse reads the numbers. What is not said of a cache costs as much as the rest of the input.
func (r *rates) parse() (*Price, error) {
	p := &Price{}
	for _, f := range []struct {
		name, text, other string
		to                *int64
	}{
		{"input", r.Input, "", &p.Input},
		{"output", r.Output, "", &p.Output},
		{"cache_read", r.CacheRead, r.Input, &p.CacheRead},
		{"cache_write_5m", r.CacheWrite5m, r.Input, &p.CacheWrite5m},
		{"cache_write_1h", r.CacheWrite1h, r.Input, &p.CacheWrite1h},
	} {
		text := f.text
		if text == "" {
			text = f.other
		}
		n, err := decimal(text)
		if err != nil {
			return nil, fmt.Errorf("%s is %.20q", f.name, text)
		}
		*f.to = n
	}
	return p, nil
}

var errDecimal = errors.New("no price")

// decimal reads dollars as millionths of one, exactly.
func decimal(s string) (int64, error) {
	whole, part, _ := strings.Cut(s, ".")
	if whole == "" || len(whole) > 4 || len(part) > decimals || strings.HasSuffix(s, ".") {
		return 0, errDecimal
	}
	n := int64(0)
	for _, c := range []byte(whole + part + strings.Repeat("0", decimals-len(part))) {
		if c < '0' || c > '9' {
			return 0, errDecimal
		}
		n = n*10 + int64(c-'0')
	}
	if n > maxPrice*1_000_000 {
		return 0, errDecimal
	}
	return n, nil
}

// Find is the price of a model, nil if it is not known.
func (t *Table) Find(provider, name string) *Price {
	name = strings.TrimPrefix(name, "models/")
	if p := t.of[provider+"/"+name]; p != nil {
		return p
	}
	if base := undated(name); base != name {
		return t.of[provider+"/"+base]
	}
	return nil
}

// undated is a name without what says of when the model is: -20250929, -2024-08-06, -latest, -001, @20250929.
func undated(name string) string {
	if base, ok := strings.CutSuffix(name, "-latest"); ok {
		return base
	}
	if base, date, ok := strings.Cut(name, "@"); ok && like(date, "00000000") {
		return base
	}
	// The base may itself end in digits ("claude-opus-4-5-20251101"): only the last numbers are a date.
	for _, shape := range []string{"-0000-00-00", "-00000000", "-000"} {
		if at := len(name) - len(shape); at > 0 && like(name[at:], shape) {
			return name[:at]
		}
	}
	return name
}

func like(s, shape string) bool {
	if len(s) != len(shape) {
		return false
	}
	for i := range len(s) {
		if (s[i] == '-') != (shape[i] == '-') || s[i] != '-' && (s[i] < '0' || s[i] > '9') {
			return false
		}
	}
	return true
}

// Cost is what these tokens cost, rounded up to the next billionth of a dollar.
func (p *Price) Cost(u *model.Usage) Nano {
	if p.Above != nil && u.Input+u.CacheRead+u.CacheWrite5m+u.CacheWrite1h > p.AboveTokens {
		p = p.Above
	}
	// Each product is at most 10^9 tokens times 10^9 picodollars.
	total := Nano(0)
	pico := int64(0)
	for _, x := range [][2]int64{
		{u.Input, p.Input},
		{u.Output, p.Output},
		{u.CacheRead, p.CacheRead},
		{u.CacheWrite5m, p.CacheWrite5m},
		{u.CacheWrite1h, p.CacheWrite1h},
	} {
		product := min(max(x[0], 0), 2*model.MaxTokens) * x[1]
		total += Nano(product / 1000)
		pico += product % 1000
	}
	return total + Nano((pico+999)/1000)
}

// Micros is money in millionths of a dollar, rounded up.
func (n Nano) Micros() int64 { return (int64(n) + 999) / 1000 }

// String is money in dollars, with as many digits as it takes.
func (n Nano) String() string {
	sign, abs := "", n
	if n < 0 {
		sign, abs = "-", -n
	}
	text := fmt.Sprintf("%s%d.%09d", sign, abs/Dollar, abs%Dollar)
	text = strings.TrimRight(text, "0")
	if i := strings.IndexByte(text, '.'); len(text)-i < 3 {
		text += "00"[:3-(len(text)-i)]
	}
	return text
}

// Parse reads dollars, such as "5" or "0.25".
func Parse(s string) (Nano, error) {
	whole, part, _ := strings.Cut(strings.TrimPrefix(s, "$"), ".")
	n := int64(0)
	if whole == "" || len(whole) > 9 || len(part) > 9 {
		return 0, errDecimal
	}
	for _, c := range []byte(whole + part + strings.Repeat("0", 9-len(part))) {
		if c < '0' || c > '9' {
			return 0, errDecimal
		}
		n = n*10 + int64(c-'0')
	}
	return Nano(n), nil
}
