package service

// SetBefore lets a test be told each step of changing state on disk, and lose power there.
func SetBefore(o *Options, before func(step string)) { o.before = before }
