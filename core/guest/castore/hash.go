//go:build linux

package castore

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // OpenSSL's choice; it only names a file
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
)

// errOldString is a name that has to be converted in ways which no certificate of today needs.
var errOldString = errors.New("its name is in an old kind of string")

// attribute is a part of a name.
type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// subjectHash is by what OpenSSL finds a certificate in a directory: the first bytes of SHA-1 over its subject in a form in which
// names that differ only in case, spaces or kind of string are the same.
func subjectHash(subject []byte) (string, error) {
	var sets []asn1.RawValue
	if rest, err := asn1.Unmarshal(subject, &sets); err != nil || len(rest) > 0 {
		return "", errors.Join(errors.New("its name cannot be read"), err)
	}
	var all []byte
	for _, set := range sets {
		var attributes []attribute
		if rest, err := asn1.UnmarshalWithParams(set.FullBytes, &attributes, "set"); err != nil || len(rest) > 0 {
			return "", errors.Join(errors.New("its name cannot be read"), err)
		}
		for i := range attributes {
			v, err := plain(attributes[i].Value)
			if err != nil {
				return "", err
			}
			attributes[i].Value = v
		}
		der, err := asn1.MarshalWithParams(attributes, "set")
		if err != nil {
			return "", fmt.Errorf("encode name: %w", err)
		}
		all = append(all, der...)
	}
	sum := sha1.Sum(all) //nolint:gosec // it only names a file
	return fmt.Sprintf("%08x", binary.LittleEndian.Uint32(sum[:])), nil
}

// plain is a string as UTF8String in small letters, with single spaces inside and none around. Other values stay as they are.
func plain(v asn1.RawValue) (asn1.RawValue, error) {
	if v.Class != asn1.ClassUniversal {
		return v, nil
	}
	const visibleString, universalString = 26, 28
	switch v.Tag {
	case asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, visibleString:
	case asn1.TagT61String, asn1.TagBMPString, universalString:
		// The oldest of them is much like ASCII, as long as it is used for that.
		if v.Tag != asn1.TagT61String || bytes.ContainsFunc(v.Bytes, func(r rune) bool { return r >= 0x80 }) {
			return v, errOldString
		}
	default:
		return v, nil
	}
	words := bytes.FieldsFunc(v.Bytes, func(r rune) bool { return r == ' ' || (r >= '\t' && r <= '\r') })
	text := bytes.Join(words, []byte{' '})
	for i, c := range text {
		if c >= 'A' && c <= 'Z' {
			text[i] = c + 'a' - 'A' // and no letters beyond ASCII
		}
	}
	return asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagUTF8String, Bytes: text}, nil
}
