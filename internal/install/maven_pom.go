package install

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/brasa-dev/brasa/internal/faas"
)

// pom is what counts of a pom.xml here.
type pom struct {
	text     []byte
	cuts     [][2]int64 // of text: what does not
	needs    bool       // it depends on something, or may by its parent
	build    bool       // it says how it is built
	modules  bool
	parent   bool
	provided bool
	deps     int64 // where <dependencies> ends in text; 0: there is none
	end      int64 // where the project ends
	own      map[string][2]int64
	refers   bool // to its own names
}

// readPOM finds the parts of a pom.xml by their places, so that what stays is as it was.
func readPOM(text []byte) (*pom, error) {
	text, err := inUTF8(text)
	if err != nil {
		return nil, err
	}
	p := &pom{text: text, own: map[string][2]int64{}}
	p.refers = bytes.Contains(text, []byte("${project.")) || bytes.Contains(text, []byte("${pom.")) || bytes.Contains(text, []byte("${version}"))
	d := xml.NewDecoder(bytes.NewReader(text))
	var at []string
	var begins []int64
	for {
		before := d.InputOffset()
		t, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, faas.Errorf(faas.Invalid, op, "pom.xml: %v", err)
		}
		switch t := t.(type) {
		case xml.StartElement:
			at, begins = append(at, t.Name.Local), append(begins, before)
		case xml.CharData:
			if strings.Join(at, "/") == "project/dependencies/dependency/scope" && strings.TrimSpace(string(t)) == "provided" {
				p.provided = true
			}
		case xml.EndElement:
			if len(at) == 0 {
				break // the decoder says so
			}
			begin, after := begins[len(begins)-1], d.InputOffset()
			p.element(strings.Join(at, "/"), begin, before, after)
			at, begins = at[:len(at)-1], begins[:len(begins)-1]
		}
	}
	if p.end == 0 {
		return nil, faas.Errorf(faas.Invalid, op, "pom.xml has no project")
	}
	return p, nil
}

// element is told of each element when it ends: where it begins, where its end tag begins and ends.
func (p *pom) element(name string, begin, inner, after int64) {
	switch name {
	case "project":
		p.end = inner
	case "project/build", "project/profiles/profile/build":
		p.build = p.build || bytes.Contains(p.text[begin:after], []byte("<plugin>"))
		p.cuts = append(p.cuts, [2]int64{begin, after})
	case "project/reporting", "project/profiles/profile/reporting", "project/distributionManagement", "project/profiles/profile/distributionManagement",
		"project/name", "project/description", "project/url", "project/licenses", "project/developers", "project/contributors", "project/scm",
		"project/issueManagement", "project/ciManagement", "project/inceptionYear", "project/organization", "project/mailingLists", "project/packaging":
		p.cuts = append(p.cuts, [2]int64{begin, after})
	case "project/modules/module":
		p.modules = true
	case "project/parent":
		p.parent, p.needs = true, true
	case "project/dependencies/dependency", "project/profiles/profile/dependencies/dependency":
		p.needs = true
	case "project/dependencies":
		p.deps = inner
	case "project/artifactId", "project/version":
		p.own[path.Base(name)] = [2]int64{begin, after}
	}
}

// add returns the pom less what does not count, with other artifacts besides. A project that does
// not refer to its own names loses them, so that functions with the same dependencies share a layer.
func (p *pom) add(with []string) ([]byte, error) {
	var more strings.Builder
	for _, c := range with {
		f := strings.Split(c, ":")
		fmt.Fprintf(&more, "<dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version></dependency>", f[0], f[1], f[2])
	}
	type edit struct {
		from, to int64
		text     string
	}
	var edits []edit
	for _, c := range p.cuts {
		edits = append(edits, edit{c[0], c[1], ""})
	}
	if !p.refers {
		for tag, at := range p.own {
			edits = append(edits, edit{at[0], at[1], "<" + tag + ">" + map[string]string{"artifactId": "function", "version": "1"}[tag] + "</" + tag + ">"})
		}
	}
	switch {
	case more.Len() == 0:
	case p.deps > 0:
		edits = append(edits, edit{p.deps, p.deps, more.String()})
	default:
		edits = append(edits, edit{p.end, p.end, "<dependencies>" + more.String() + "</dependencies>"})
	}
	var out []byte
	for at := int64(0); ; {
		next := edit{from: int64(len(p.text)), to: -1}
		for _, e := range edits {
			if e.from >= at && e.from < next.from {
				next = e
			}
		}
		out = append(out, p.text[at:next.from]...)
		if next.to < 0 {
			break
		}
		out = append(out, next.text...)
		at = next.to
		edits = drop(edits, next)
	}
	return out, nil
}

func drop[T comparable](all []T, one T) []T {
	for i, e := range all {
		if e == one {
			return append(all[:i:i], all[i+1:]...)
		}
	}
	return all
}

var xmlDeclaration = regexp.MustCompile(`^\s*<\?xml[^>]*?\sencoding\s*=\s*["']([A-Za-z0-9._-]+)["'][^>]*\?>`)

// inUTF8 returns a pom in UTF-8 and without a declaration of another charset: what is cut out of it is
// found by its place, which must be the same for us and for Maven.
func inUTF8(text []byte) ([]byte, error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	x := xmlDeclaration.FindSubmatchIndex(text)
	charset := "utf-8"
	if x != nil {
		charset = strings.ToLower(string(text[x[2]:x[3]]))
		text = text[x[1]:]
	}
	switch charset {
	case "utf-8", "us-ascii":
	case "iso-8859-1", "windows-1252":
		wide := make([]rune, len(text))
		for i, c := range text {
			wide[i] = rune(c)
		}
		text = []byte(string(wide))
	default:
		return nil, faas.Errorf(faas.Invalid, op, "pom.xml: the charset %q is not read", charset).WithFix("write it in UTF-8")
	}
	if !utf8.Valid(text) || bytes.Contains(text, []byte("<!DOCTYPE")) {
		return nil, faas.Errorf(faas.Invalid, op, "pom.xml is not UTF-8, or has a document type").WithFix("write it in UTF-8, without <!DOCTYPE>")
	}
	return text, nil
}
