package strict

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// lines writes a head: each line ends in CR LF, and then comes the body.
func lines(body string, head ...string) string {
	return strings.Join(head, "\r\n") + "\r\n\r\n" + body
}

const post, host = "POST / HTTP/1.1", "Host: a.test"

// attacks are requests in which implementations have seen different ends, with the kind and what must not have passed.
var attacks = map[string]struct {
	text string
	want Kind
}{
	"CL.TE":                          {lines("0\r\n\r\nG", post, host, "Content-Length: 6", "Transfer-Encoding: chunked"), LengthAndEncoding},
	"TE.CL":                          {lines("5c\r\nGPOST", post, host, "Transfer-Encoding: chunked", "Content-Length: 4"), LengthAndEncoding},
	"CL.0 and TE":                    {lines("", post, host, "Content-Length: 0", "Transfer-Encoding: chunked"), LengthAndEncoding},
	"two lengths":                    {lines("", post, host, "Content-Length: 8", "Content-Length: 7"), SecondLength},
	"the same length twice":          {lines("", post, host, "Content-Length: 0", "content-length: 0"), SecondLength},
	"list of lengths":                {lines("", post, host, "Content-Length: 5, 5"), BadLength},
	"length with plus":               {lines("", post, host, "Content-Length: +5"), BadLength},
	"length with minus":              {lines("", post, host, "Content-Length: -5"), BadLength},
	"length with space inside":       {lines("", post, host, "Content-Length: 1 2"), BadLength},
	"length with space after":        {lines("", post, host, "Content-Length: 5 "), BadLength},
	"length with spaces before":      {lines("", post, host, "Content-Length:  5"), BadLength},
	"length with tab":                {lines("", post, host, "Content-Length:\t5"), BadLength},
	"length in hex":                  {lines("", post, host, "Content-Length: 0x5"), BadLength},
	"length with exponent":           {lines("", post, host, "Content-Length: 5e1"), BadLength},
	"length with underscore":         {lines("", post, host, "Content-Length: 1_0"), BadLength},
	"length in octal":                {lines("", post, host, "Content-Length: 010"), BadLength},
	"length too large":               {lines("", post, host, "Content-Length: 18446744073709551616"), BadLength},
	"length larger than any":         {lines("", post, host, "Content-Length: "+strings.Repeat("1", 500)), BadLength},
	"empty length":                   {lines("", post, host, "Content-Length:"), BadLength},
	"length in other digits":         {lines("", post, host, "Content-Length: \xd9\xa5"), BadLength},
	"quoted length":                  {lines("", post, host, "Content-Length: \"5\""), BadLength},
	"two encodings":                  {lines("", post, host, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), SecondEncoding},
	"encoding and a lie":             {lines("", post, host, "Transfer-Encoding: chunked", "Transfer-Encoding: cow"), SecondEncoding},
	"a lie and encoding":             {lines("", post, host, "Transfer-Encoding: cow", "Transfer-Encoding: chunked"), BadEncoding},
	"xchunked":                       {lines("", post, host, "Transfer-Encoding: xchunked"), BadEncoding},
	"chunked in capitals":            {lines("", post, host, "Transfer-Encoding: Chunked"), BadEncoding},
	"chunked, identity":              {lines("", post, host, "Transfer-Encoding: chunked, identity"), BadEncoding},
	"identity, chunked":              {lines("", post, host, "Transfer-Encoding: identity, chunked"), BadEncoding},
	"chunked twice in a list":        {lines("", post, host, "Transfer-Encoding: chunked, chunked"), BadEncoding},
	"gzip, chunked":                  {lines("", post, host, "Transfer-Encoding: gzip, chunked"), BadEncoding},
	"quoted chunked":                 {lines("", post, host, "Transfer-Encoding: \"chunked\""), BadEncoding},
	"chunked with parameter":         {lines("", post, host, "Transfer-Encoding: chunked;q=1"), BadEncoding},
	"chunked after a tab":            {lines("", post, host, "Transfer-Encoding:\tchunked"), BadEncoding},
	"chunked with space after":       {lines("", post, host, "Transfer-Encoding: chunked "), BadEncoding},
	"chunked after vertical tab":     {lines("", post, host, "Transfer-Encoding:\x0bchunked"), BadValue},
	"chunked after form feed":        {lines("", post, host, "Transfer-Encoding: \x0cchunked"), BadValue},
	"chunked after no-break space":   {lines("", post, host, "Transfer-Encoding: \xa0chunked"), BadEncoding},
	"empty encoding":                 {lines("", post, host, "Transfer-Encoding: "), BadEncoding},
	"space before colon":             {lines("", post, host, "Transfer-Encoding : chunked"), BadName},
	"tab before colon":               {lines("", post, host, "Transfer-Encoding\t: chunked"), BadName},
	"space before name":              {lines("", post, host, " Transfer-Encoding: chunked"), Folded},
	"folded encoding":                {lines("", post, host, "Transfer-Encoding:", " chunked"), BadEncoding},
	"folded other header":            {lines("", post, host, "X: y", "\tTransfer-Encoding: chunked"), Folded},
	"fold right after the request":   {lines("", post, "\tHost: a.test"), Folded},
	"header behind bare LF":          {lines("", post, host, "X: y\nTransfer-Encoding: chunked"), BadLineEnd},
	"header behind bare CR":          {lines("", post, host, "X: y\rTransfer-Encoding: chunked"), BadLineEnd},
	"header behind LF CR":            {lines("", post, host, "X: y\n\rTransfer-Encoding: chunked"), BadLineEnd},
	"header behind two CR and LF":    {lines("", post, host, "X: y\r"), BadLineEnd},
	"NUL in value":                   {lines("", post, host, "X: y\x00Transfer-Encoding: chunked"), BadValue},
	"DEL in value":                   {lines("", post, host, "X: \x7f"), BadValue},
	"escape in value":                {lines("", post, host, "X: \x1b[2J"), BadValue},
	"NUL in name":                    {lines("", post, host, "X\x00: y"), BadName},
	"name in other letters":          {lines("", post, host, "Tran\xc5\xbffer-Encoding: chunked"), BadName},
	"name in quotes":                 {lines("", post, host, "\"Transfer-Encoding\": chunked"), BadName},
	"empty name":                     {lines("", post, host, ": chunked"), BadName},
	"line without colon":             {lines("", post, host, "Transfer-Encoding chunked"), BadName},
	"line of a name only":            {lines("", post, host, "Transfer-Encoding"), BadName},
	"two hosts":                      {lines("", post, host, "hOST: b.test"), SecondHost},
	"head ended by two LF":           {"GET / HTTP/1.1\nHost: a.test\n\n", BadLineEnd},
	"head ended by CR and two LF":    {"GET / HTTP/1.1\r\nHost: a.test\r\n\n", BadLineEnd},
	"head ended by CR LF and two CR": {"GET / HTTP/1.1\r\nHost: a.test\r\n\r\r", BadLineEnd},
	"HTTP/0.9":                       {"GET /\r\n", BadTarget},
	"HTTP/0.9 with a version":        {lines("", "GET / HTTP/0.9"), BadVersion},
	"HTTP/1.2":                       {lines("", "GET / HTTP/1.2"), BadVersion},
	"HTTP/1.10":                      {lines("", "GET / HTTP/1.10"), BadVersion},
	"HTTP/2":                         {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BadVersion},
	"http/1.1 in small":              {lines("", "GET / http/1.1"), BadVersion},
	"two spaces before the version":  {lines("", "GET /  HTTP/1.1"), BadVersion},
	"space after the version":        {lines("", "GET / HTTP/1.1 "), BadVersion},
	"two spaces after the method":    {lines("", "GET  / HTTP/1.1"), BadTarget},
	"tab after the method":           {lines("", "GET\t/ HTTP/1.1"), BadMethod},
	"space in the target":            {lines("", "GET /a b HTTP/1.1"), BadVersion},
	"NUL in the target":              {lines("", "GET /\x00 HTTP/1.1"), BadTarget},
	"line end in the target":         {lines("", "GET /\r\nX: y HTTP/1.1"), BadTarget},
	"empty lines first":              {"\r\n" + lines("", "GET / HTTP/1.1", host), BadMethod},
	"TLS":                            {"\x16\x03\x01\x02\x00", BadMethod},
	"encoding in HTTP/1.0":           {lines("0\r\n\r\n", "POST / HTTP/1.0", host, "Transfer-Encoding: chunked"), OldEncoding},
	"CONNECT with length":            {lines("", "CONNECT a.test:443 HTTP/1.1", host, "Content-Length: 5"), ConnectBody},
	"CONNECT in chunks":              {lines("", "CONNECT a.test:443 HTTP/1.1", host, "Transfer-Encoding: chunked"), ConnectBody},
	"huge head":                      {lines("", post, host, "X: "+strings.Repeat("y", 70<<10)), TooLong},
	"huge target":                    {lines("", "GET /"+strings.Repeat("y", 70<<10)+" HTTP/1.1"), TooLong},
	"too many headers":               {lines("", "GET / HTTP/1.1", strings.Repeat("X: y\r\n", 200)), TooMany},
	"huge method":                    {strings.Repeat("A", 100) + " / HTTP/1.1\r\n\r\n", BadMethod},

	"chunk size with 0x":            {chunked("0x5\r\nhello\r\n0\r\n\r\n"), BadChunk},
	"chunk size with plus":          {chunked("+5\r\nhello\r\n0\r\n\r\n"), BadChunk},
	"chunk size with minus":         {chunked("-0\r\n\r\n"), BadChunk},
	"chunk size with space before":  {chunked(" 5\r\nhello\r\n0\r\n\r\n"), BadChunk},
	"chunk size with space after":   {chunked("5 \r\nhello\r\n0\r\n\r\n"), BadChunk},
	"chunk size with tab":           {chunked("5\t\r\nhello\r\n0\r\n\r\n"), BadChunk},
	"chunk size with underscore":    {chunked("1_0\r\nhello\r\n0\r\n\r\n"), BadChunk},
	"chunk size too large":          {chunked("fffffffffffffffff\r\n"), BadChunk},
	"chunk size that wraps":         {chunked("100000000000000005\r\nhello\r\n0\r\n\r\n"), BadChunk},
	"empty chunk size":              {chunked("\r\n"), BadChunk},
	"chunk extension":               {chunked("5;a=b\r\nhello\r\n0\r\n\r\n"), BadChunk},
	"line end in an extension":      {chunked("2;\nxx\r\n0\r\n\r\n"), BadChunk},
	"chunk size ended by LF":        {chunked("5\nhello\r\n0\r\n\r\n"), BadChunk},
	"chunk size ended by CR":        {chunked("5\rhello\r\n0\r\n\r\n"), BadChunk},
	"chunk ended by LF":             {chunked("5\r\nhello\n0\r\n\r\n"), BadChunk},
	"chunk ended by two characters": {chunked("5\r\nhelloXX0\r\n\r\n"), BadChunk},
	"chunk too long":                {chunked("5\r\nhello!\r\n0\r\n\r\n"), BadChunk},
	"chunk too short":               {chunked("5\r\nhell\r\n0\r\n\r\n"), BadChunk},
	"last chunk ended by LF":        {chunked("0\n\r\n"), BadChunk},
	"body ended by LF":              {chunked("0\r\n\n"), BadLineEnd},
	"length in the trailer":         {chunked("0\r\nContent-Length: 5\r\n\r\n"), BadTrailer},
	"encoding in the trailer":       {chunked("0\r\nTransfer-Encoding: chunked\r\n\r\n"), BadTrailer},
	"host in the trailer":           {chunked("0\r\nHost: b.test\r\n\r\n"), BadTrailer},
	"folded trailer":                {chunked("0\r\nX: y\r\n z\r\n\r\n"), Folded},
	"huge trailer":                  {chunked("0\r\nX: " + strings.Repeat("y", 3000) + "\r\n\r\n"), TooLong},
	"the second of two requests":    {lines("", "GET / HTTP/1.1", host) + lines("", post, host, "Content-Length: +1"), BadLength},
	"what follows a body":           {lines("hello\r\n", post, host, "Content-Length: 5") + lines("", "GET / HTTP/1.1", host), BadMethod},
	"early data of a CONNECT":       {lines("\x16\x03\x01", "CONNECT a.test:443 HTTP/1.1", host), BadMethod},
}

func chunked(body string) string { return lines(body, post, host, "Transfer-Encoding: chunked") }

func TestAttacksAreRefusedBeforeTheirHeadOrBodyIsWhole(t *testing.T) {
	t.Parallel()
	for name, a := range attacks {
		for how, r := range map[string]io.Reader{"at once": strings.NewReader(a.text), "byte by byte": iotest.OneByteReader(strings.NewReader(a.text))} {
			s := NewReader(r, Limits{})
			got, err := io.ReadAll(s)
			var refused *Error
			if !errors.As(err, &refused) || refused.Kind != a.want {
				t.Errorf("%s, %s: %v, want %q", name, how, err, a.want)
				continue
			}
			if string(got) != a.text[:refused.Offset] {
				t.Errorf("%s, %s: passed %q", name, how, got)
			}
			if s.Err() != refused {
				t.Errorf("%s, %s: later it is %v", name, how, s.Err())
			}
			if n, err := s.Read(make([]byte, 9)); n != 0 || !errors.Is(err, refused) {
				t.Errorf("%s, %s: goes on with %d, %v", name, how, n, err)
			}
			whole := 0
			if strings.HasPrefix(name, "what follows") || strings.HasPrefix(name, "the second") || strings.HasPrefix(name, "early data") {
				whole = 1
			}
			if n := complete(t, got); n != whole {
				t.Errorf("%s, %s: a server has %d whole requests of %q", name, how, n, got)
			}
		}
	}
}

func TestOrdinaryRequestsPassUnchanged(t *testing.T) {
	t.Parallel()
	var all strings.Builder
	for name, text := range map[string]string{
		"get":             lines("", "GET /a?b=c%20d HTTP/1.1", host, "Accept: */*", "X-Empty:", "X-Tab: a\tb", "X-High: \xc3\xa9"),
		"raw path":        lines("", "GET /\xc3\xa9 HTTP/1.1", host),
		"length":          lines("hello", post, host, "Content-Length: 5"),
		"length in small": lines("hello", post, "host:a.test", "content-length:5"),
		"length zero":     lines("", post, host, "Content-Length: 0"),
		"chunks":          chunked("5\r\nhello\r\n00A\r\n0123456789\r\n0\r\n\r\n"),
		"trailer":         chunked("1\r\nx\r\n0\r\nX-Sum: 1\r\nX-Other: 2\r\n\r\n"),
		"1.0":             lines("ab", "POST / HTTP/1.0", "Content-Length: 2", "Connection: keep-alive"),
		"absolute form":   lines("", "GET http://a.test/ HTTP/1.1", host),
		"options":         lines("", "OPTIONS * HTTP/1.1", host),
		"connect":         lines("", "CONNECT a.test:443 HTTP/1.1", host),
		"upgrade":         lines("", "GET / HTTP/1.1", host, "Connection: Upgrade", "Upgrade: websocket"),
		"long names":      lines("", "GET / HTTP/1.1", host, strings.Repeat("x", 300)+": y", "Transfer-Encoding-Not: z", "Content-Lengthy: a"),
		"many":            lines("", "GET / HTTP/1.1", strings.Repeat("X: y\r\n", 125)+host),
	} {
		all.WriteString(text)
		for how, r := range map[string]io.Reader{
			"at once": strings.NewReader(text), "byte by byte": iotest.OneByteReader(strings.NewReader(text)), "halves": iotest.HalfReader(strings.NewReader(text)),
		} {
			if got, err := io.ReadAll(NewReader(r, Limits{})); err != nil || string(got) != text {
				t.Errorf("%s, %s: %q, %v", name, how, got, err)
			}
		}
	}
	if got, err := io.ReadAll(NewReader(strings.NewReader(all.String()), Limits{})); err != nil || string(got) != all.String() {
		t.Errorf("one after the other: %v", err)
	}
}

func TestOffLetsEverythingThrough(t *testing.T) {
	t.Parallel()
	head := lines("", "GET / HTTP/1.1", host, "Connection: Upgrade", "Upgrade: websocket")
	client := &bytes.Buffer{}
	client.WriteString(head)
	s := NewReader(client, Limits{})
	if _, err := io.ReadFull(s, make([]byte, len(head))); err != nil {
		t.Fatal(err)
	}
	s.Off()
	client.WriteString("\x81\x05hello\n\x00")
	if got, err := io.ReadAll(s); err != nil || string(got) != "\x81\x05hello\n\x00" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestErrorsOfTheConnectionPassAndDoNotStick(t *testing.T) {
	t.Parallel()
	s := NewReader(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("GET"))), Limits{})
	p := make([]byte, 9)
	if n, err := s.Read(p); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := s.Read(p); !errors.Is(err, iotest.ErrTimeout) || s.Err() != nil {
		t.Errorf("%v", err)
	}
	if n, err := s.Read(p); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}
