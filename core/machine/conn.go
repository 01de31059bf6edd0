package machine

import (
	"bufio"
	"fmt"
	"net"
	"sync"

	"capsem/core/proto"
)

// client is one connection after its greeting.
type client struct {
	net.Conn
	r *bufio.Reader
	// watching is closed when whoever looks out for the client's leaving has ended; nil when nobody does.
	watching chan struct{}
	// credentials are the parts that have come so far; nil when the next is the first.
	credentials *proto.Credentials
}

// Read reads what came behind a request.
func (c *client) Read(p []byte) (int, error) { return c.r.Read(p) } //nolint:wrapcheck // a net.Conn hands errors through

// next returns the client's next frame, which must be freed; a waiting client holds no frame. On error it is nil, which can be
// freed too.
func (c *client) next() (*frame, error) {
	if _, err := c.r.Peek(frameHead); err != nil {
		return nil, fmt.Errorf("wait for the client: %w", err)
	}
	f := newFrame()
	if err := f.read(c); err != nil {
		f.free()
		return nil, err
	}
	return f, nil
}

// lookout calls left when the client goes away while its request is worked on. Whatever else it sends stays unread until
// the next request is awaited.
func (c *client) lookout(left func()) {
	c.watching = make(chan struct{})
	go func() {
		defer close(c.watching)
		if _, err := c.r.Peek(1); err != nil {
			left()
		}
	}()
}

// ready waits until nobody else reads from the client.
func (c *client) ready() {
	if c.watching != nil {
		<-c.watching
		c.watching = nil
	}
}

// crowd is the clients that are connected, and which of them have nothing asked.
type crowd struct {
	mu      sync.Mutex
	idle    map[*client]bool
	closing bool
}

// rest notes that a client has nothing asked. It reports false when the worker ends and the client must leave.
func (k *crowd) rest(c *client) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.idle == nil {
		k.idle = map[*client]bool{}
	}
	k.idle[c] = true
	return !k.closing
}

// busy notes that a client has asked something, or left.
func (k *crowd) busy(c *client) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.idle, c)
}

// dismiss closes the connections of clients that have nothing asked, and those that will have later.
func (k *crowd) dismiss() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closing = true
	for c := range k.idle {
		_ = c.Close() // it waits in a read, which that ends
	}
}
