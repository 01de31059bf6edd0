package credential

import "os"

// keychainAnswers says whether there is a session bus, by which the keychain of a desktop is asked.
func keychainAnswers() bool { return os.Getenv("DBUS_SESSION_BUS_ADDRESS") != "" }
