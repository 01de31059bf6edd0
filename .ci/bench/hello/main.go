// Command hello does nothing but print a line: the least a static Go program can take to start, for comparison.
package main

import "os"

func main() {
	if _, err := os.Stdout.WriteString("hello\n"); err != nil {
		panic(err)
	}
}
