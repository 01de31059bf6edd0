package modeltap

import (
	"log/slog"
	"time"

	"capsem/core/budget"
	"capsem/core/inspect/price"
	"capsem/core/ledger"
	"capsem/core/paths"
)

// VM says for whom a Tap is opened.
type VM struct {
	// Family and Image say whose budgets hold; see proto.VMSpec.Family.
	Family, Image string
	// Timezone is the owner's, as an IANA name; empty is this machine's.
	Timezone string
	// Keep is how much of prompts and answers is recorded; 0 is nothing.
	Keep int
}

// Open makes the Tap of a VM, with the budgets and the prices of an installation. A table of prices that cannot be read is said and left
// out: the embedded one holds. Budgets that cannot be read are an error: nobody knows what may be spent.
func Open(home paths.Home, vm VM, recorder ledger.Recorder, log *slog.Logger) (tap *Tap, closeTap func() error, err error) {
	var zone *time.Location
	if vm.Timezone != "" {
		if zone, err = time.LoadLocation(vm.Timezone); err != nil {
			log.Warn("the owner's time zone is not known here; days are those of this machine", "zone", vm.Timezone, "error", err)
			zone = nil
		}
	}
	prices, err := price.Load(home.Prices())
	if err != nil {
		log.Warn("the owner's prices cannot be read; those that are built in hold", "error", err)
		if prices, err = price.Embedded(); err != nil {
			return nil, nil, err //nolint:wrapcheck // says what it did
		}
	}
	book, err := budget.Open(home.Budgets(), zone)
	if err != nil {
		return nil, nil, err //nolint:wrapcheck // says what it did
	}
	return New(Config{Recorder: recorder, Account: book.Account(vm.Family, vm.Image), Prices: prices, Log: log, Keep: vm.Keep}), book.Close, nil
}
