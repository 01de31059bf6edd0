package detect

import (
	"regexp"
	"slices"
	"unicode/utf8"
)

// marks are texts that speak to a model instead of its user. Each begins with one of words; what is compared is in lower case, with runs of
// blanks as one and without characters that cannot be seen.
var marks = []pattern{
	{
		rule: "ignore-instructions", words: []string{"ignore ", "disregard ", "forget ", "override "},
		rest: regexp.MustCompile(`^(?:ignore|disregard|forget|override) (?:any |all |all of |every )?(?:(?:the|your|my|of|these|those) )*(?:previous|prior|above|earlier|preceding|existing|system)(?: (?:and|or) \w+)? (?:instructions?|prompts?|rules|directions|directives|guidelines|messages?)`),
	},
	{
		rule: "new-role", words: []string{"you are now ", "from now on you ", "from now on, you "},
		rest: regexp.MustCompile(`^(?:you are now (?:in (?:developer|debug|god|admin|unrestricted|jailbreak) mode|dan\b|an unrestricted|no longer (?:bound|restricted))|from now on,? you (?:are (?:dan\b|an unrestricted|no longer)|must (?:ignore|obey|follow only)|will (?:ignore|obey)))`),
	},
	{
		rule: "hide-from-user", words: []string{"do not tell ", "don't tell ", "do not mention this ", "do not inform ", "without telling ", "don't mention this ", "do not reveal this "},
		rest: regexp.MustCompile(`^(?:(?:do not|don't) (?:tell|inform) the (?:user|human|owner)|(?:do not|don't) (?:mention|reveal) this (?:to|instruction)|without telling the (?:user|human|owner))`),
	},
	{
		rule: "send-secrets", words: []string{"send ", "upload ", "exfiltrate ", "post "},
		rest: regexp.MustCompile(`^(?:send|upload|exfiltrate|post) (?:me )?(?:the |all |your |any )*(?:contents? of )?(?:the |all |your )*(?:environment variables|env vars?|api keys?|ssh keys?|private keys?|credentials|secrets|\.env\b|~/\.(?:ssh|aws|claude|codex))[^.]{0,60} to (?:https?:|the following|this (?:url|address|server))`),
	},
	{rule: "chat-markup", words: []string{"<|im_start|>", "<|im_end|>", "<|system|>", "<|start_header_id|>", "[inst] <<sys>>", "<|endofprompt|>"}, rest: regexp.MustCompile(`^(?:<\|(?:im_start|system|start_header_id)\|>\s*(?:system|assistant|user|developer)?|<\|im_end\|>|\[inst\] <<sys>>|<\|endofprompt\|>)`)},
	{
		rule: "tool-poisoning", words: []string{"<important>", "<system>", "<hidden>", "<secret>"},
		rest: regexp.MustCompile(`^<(?:important|system|hidden|secret)>[^<]{0,300}(?:before (?:using|calling) this tool|do not (?:mention|tell)|you must (?:first|always|read|call|pass)|read (?:the file )?~?/)`),
	},
}

// hiddenRule is a text in characters that only machines see: the tags of Unicode, which repeat ASCII.
const hiddenRule = "hidden-text"

// hiddenRun is how many of them in a row are a finding: flags of regions have five and an end.
const hiddenRun = 8

// fold is a text as marks are compared with.
type fold struct {
	blank  bool
	hidden int
	rest   []byte // a character that was cut
	out    []byte
	// smuggled says that hidden text was met.
	smuggled bool
}

// lowered is ASCII as marks are compared with; 0 are the bytes that need a closer look.
var lowered = func() (t [256]byte) {
	for c := byte('!'); c < utf8.RuneSelf; c++ {
		t[c] = c
		if c >= 'A' && c <= 'Z' {
			t[c] = c + 'a' - 'A'
		}
	}
	t['\\'] = 0
	return t
}()

// push folds a piece; the result is good until the next one.
func (f *fold) push(p []byte, last bool) []byte {
	f.out = slices.Grow(f.out[:0], len(p)+len(f.rest)+2*utf8.UTFMax)
	if len(f.rest) > 0 {
		p = append(f.rest, p...)
		f.rest = nil
	}
	for i := 0; i < len(p); {
		if n := f.plain(p[i:]); n > 0 {
			i += n
			continue
		}
		n := f.close(p[i:], last)
		if n == 0 {
			f.rest = append([]byte(nil), p[i:]...)
			break
		}
		i += n
	}
	return f.out
}

// plain folds what is plain at the begin of a piece, single blanks included, and gives how much that is.
func (f *fold) plain(p []byte) int {
	f.out = slices.Grow(f.out, len(p)) // what cannot be read takes more room than it had
	out := f.out[len(f.out) : len(f.out)+len(p)]
	blank := f.blank
	for i, c := range p {
		low := lowered[c]
		if low == 0 {
			if c != ' ' || blank {
				out, p = out[:i], p[:i]
				break
			}
			low = ' '
		}
		out[i], blank = low, low == ' '
	}
	if len(p) > 0 {
		f.out, f.blank, f.hidden = f.out[:len(f.out)+len(out)], blank, 0
	}
	return len(p)
}

// close looks at a character that is not plain, and gives how many bytes it has: 0 if there may be more.
func (f *fold) close(p []byte, last bool) int {
	switch c := p[0]; {
	case c == '\\' && len(p) == 1 && !last:
		return 0
	case c == '\\' && len(p) > 1 && (p[1] == 'n' || p[1] == 't' || p[1] == 'r'): // in JSON
		f.add(' ')
		return 2
	case c < utf8.RuneSelf:
		f.hidden = 0
		f.add(c)
		return 1
	case !last && !utf8.FullRune(p):
		return 0
	}
	r, n := utf8.DecodeRune(p)
	f.rune(r)
	return n
}

func (f *fold) add(c byte) {
	switch {
	case c == ' ' || c >= '\t' && c <= '\r':
		if !f.blank {
			f.out = append(f.out, ' ')
		}
		f.blank = true
		return
	case lowered[c] != 0:
		c = lowered[c]
	}
	f.blank = false
	f.out = append(f.out, c)
}

func (f *fold) rune(r rune) {
	switch {
	case r >= 0xe0000 && r <= 0xe007f:
		if f.hidden++; f.hidden >= hiddenRun {
			f.smuggled = true
		}
		if r > 0xe0020 && r < 0xe007f {
			f.add(byte(r - 0xe0000))
		}
		return
	case r >= 0x200b && r <= 0x200f, r >= 0x2060 && r <= 0x2064, r == 0xfeff, r == 0xad:
		return // they cannot be seen
	case r == 0xa0 || r == 0x2028 || r == 0x3000:
		f.add(' ')
	case r == '’':
		f.add('\'')
	default:
		f.blank = false
		f.out = utf8.AppendRune(f.out, r)
	}
	f.hidden = 0
}
