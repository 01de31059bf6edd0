package vz

// canSave reports whether the framework can save machines: not on Intel's processors.
func canSave() bool { return false }
