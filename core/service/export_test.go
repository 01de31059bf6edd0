package service

// Abandon stops a service as its death would: what it keeps ready stays.
func Abandon(s *Service) {
	s.pool.stop()
	<-s.pool.done
	s.pool.stop = nil
	s.Close()
}

// SetBefore lets a test be told each step of changing state on disk, and lose power there.
func SetBefore(o *Options, before func(step string)) { o.before = before }
