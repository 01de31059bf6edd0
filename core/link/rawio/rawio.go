// Package rawio reads and writes files that never block, without telling Go's scheduler.
//
// A system call that the scheduler is told of wakes its monitor thread, which then looks every 20 microseconds whether the call
// takes long. In an emulated guest that costs more than the call: each look is a timer, an interrupt and two switches of threads.
// Whoever uses this must know that the file does not block, as one does that was opened with O_NONBLOCK.
package rawio
