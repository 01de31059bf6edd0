package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// Bounds on one "when": what evaluating it may cost (roughly: steps and bytes looked at) and hold, and how large it may be.
const (
	whenCost   = 100_000
	whenMemory = 1 << 20
	whenNodes  = 2000
	whenDepth  = 50
	whenRegex  = 1000
)

// whenVars are the variables of a "when", each with the facts it needs.
var whenVars = map[string]struct {
	kind *cel.Type
	fact Fact
}{
	"vm":         {cel.StringType, 0},
	"host":       {cel.StringType, FactHost},
	"port":       {cel.IntType, FactPort},
	"scheme":     {cel.StringType, FactScheme},
	"method":     {cel.StringType, FactMethod},
	"path":       {cel.StringType, FactPath},
	"query":      {cel.MapType(cel.StringType, cel.ListType(cel.StringType)), FactQuery},
	"headers":    {cel.MapType(cel.StringType, cel.ListType(cel.StringType)), FactHeader},
	"process":    {cel.StringType, FactProcess},
	"exe":        {cel.StringType, FactProcess},
	"body_size":  {cel.IntType, FactBody},
	"mcp_server": {cel.StringType, FactMCP},
	"mcp_tool":   {cel.StringType, FactMCP},
	"args":       {cel.MapType(cel.StringType, cel.DynType), FactMCP},
}

// expression is a compiled "when".
type expression struct {
	program cel.Program
	// needs are the facts that it looks at.
	needs Fact
}

// newWhenEnv makes the environment that all expressions of one policy are compiled in: declared variables, no functions of ours.
func newWhenEnv() (*cel.Env, error) {
	opts := []cel.EnvOption{
		cel.ParserExpressionSizeLimit(maxWhen), cel.ParserRecursionLimit(whenDepth), cel.ExpressionNestingDepthLimit(whenDepth),
		cel.ExpressionNodeLimit(whenNodes), cel.RegexProgramSizeLimit(whenRegex),
	}
	for _, name := range slices.Sorted(maps.Keys(whenVars)) {
		opts = append(opts, cel.Variable(name, whenVars[name].kind))
	}
	env, err := cel.NewEnv(opts...)
	if err != nil {
		return nil, fmt.Errorf("prepare CEL: %w", err)
	}
	return env, nil
}

// compileWhen checks an expression and makes it ready.
func compileWhen(env *cel.Env, text string) (*expression, error) {
	checked, issues := env.Compile(text)
	if issues.Err() != nil {
		first, _, _ := strings.Cut(issues.Err().Error(), "\n")
		return nil, errRule("when: %.300s", first)
	}
	if checked.OutputType() != cel.BoolType {
		return nil, errRule("when: it gives %s, not true or false", checked.OutputType())
	}
	program, err := env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(whenCost), cel.MemoryLimit(whenMemory))
	if err != nil {
		return nil, errRule("when: %.300s", err)
	}
	e := &expression{program: program}
	ast.PreOrderVisit(checked.NativeRep().Expr(), ast.NewExprVisitor(func(x ast.Expr) {
		if x.Kind() == ast.IdentKind {
			e.needs |= whenVars[x.AsIdent()].fact
		}
	}))
	return e, nil
}

// missing are the facts it needs that are not known yet.
func (e *expression) missing(f *facts) Fact {
	known := FactMCP
	if f.mcp {
		return 0 // the rest is known not to be there
	}
	if f.host != "" {
		known |= FactHost
	}
	if f.req.Port != 0 {
		known |= FactPort
	}
	if f.scheme&^schemeDNS != 0 {
		known |= FactScheme
	}
	if f.req.Process != "" || f.req.Exe != "" {
		known |= FactProcess
	}
	if f.http || f.scheme == schemeTCP {
		known |= factsHTTP
	}
	return e.needs &^ known
}

// eval asks the expression for each reading of the path. An error is doubt: an allow does not hold then, a deny or ask does.
func (e *expression) eval(f *facts) (outcome, error) {
	if missing := e.missing(f); missing == FactProcess {
		return doubt, nil
	} else if missing != 0 {
		return later, nil
	}
	if e.needs&FactBody != 0 && !f.mcp && f.req.BodySize < 0 {
		return doubt, errors.New("the size of the body is not known")
	}
	vars := &activation{req: *f.req, host: f.host}
	forms := f.paths
	if forms.n == 0 || e.needs&FactPath == 0 {
		forms.n = 1
	}
	all, some := true, false
	for _, vars.path = range forms.form[:forms.n] {
		out, _, err := e.program.Eval(vars)
		if err != nil {
			return doubt, fmt.Errorf("when: %w", err)
		}
		ok := out == types.True
		all, some = all && ok, some || ok
	}
	return readingsOutcome(all, some), nil
}

// activation gives an expression its variables as it asks for them. It holds copies, so that the facts of a decision need not be on the heap.
type activation struct {
	req        Request
	host, path string
}

// Parent ends the search for variables.
func (a *activation) Parent() cel.Activation { return nil }

// ResolveName gives one variable.
func (a *activation) ResolveName(name string) (any, bool) {
	r := &a.req
	switch name {
	case "vm":
		return r.VM, true
	case "host":
		return a.host, true
	case "port":
		return int64(r.Port), true
	case "scheme":
		return r.Scheme, true
	case "method":
		return r.Method, true
	case "path":
		return a.path, true
	case "query":
		return multi(func(add func(key, value string)) {
			for _, p := range parseQuery(r.Query, false) {
				add(p.key, p.value)
			}
		}), true
	case "headers":
		return multi(func(add func(key, value string)) {
			for name, values := range r.Header {
				for _, v := range values {
					add(strings.ToLower(name), v)
				}
			}
		}), true
	}
	return a.resolveRest(name)
}

func (a *activation) resolveRest(name string) (any, bool) {
	r := &a.req
	switch name {
	case "process":
		return r.Process, true
	case "exe":
		return r.Exe, true
	case "body_size":
		return r.BodySize, true
	case "mcp_server":
		return r.MCPServer, true
	case "mcp_tool":
		return r.MCPTool, true
	case "args":
		return arguments(r.MCPArgs)
	}
	return nil, false
}

func multi(each func(add func(key, value string))) ref.Val {
	m := map[string][]string{}
	each(func(key, value string) { m[key] = append(m[key], value) })
	return types.DefaultTypeAdapter.NativeToValue(m)
}

// whenEnv is the environment, made for the first rule that needs it.
type whenEnv struct {
	env *cel.Env
}

func (w *whenEnv) compile(text string) (*expression, error) {
	if w.env == nil {
		env, err := newWhenEnv()
		if err != nil {
			return nil, err
		}
		w.env = env
	}
	return compileWhen(w.env, text)
}
