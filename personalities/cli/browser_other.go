//go:build !darwin

package cli

// browserOpener opens an address in the user's browser.
const browserOpener = "xdg-open"
