package deploy

import (
	"cmp"
	"errors"
	"regexp"

	"github.com/brasa-dev/brasa/internal/faas"
)

var (
	noPackage = regexp.MustCompile(`No module named '([A-Za-z0-9_]+)`)
	noModule  = regexp.MustCompile(`Cannot find (?:module|package) '((?:@[\w.-]+/)?[\w-][\w.-]*)`)
	noNative  = regexp.MustCompile(`Cannot find module '/node_modules/[^']+\.node'|No native build was found|Could not locate the bindings file`)
)

// noHandler is what bootstraps say of code without a handler; the first of what it defines is the likeliest.
var noHandler = regexp.MustCompile(`defines none of .+; it defines ([A-Za-z_][A-Za-z0-9_]*)(?:,|$)`)

// otherNames are packages of Python that are imported under another name than they are installed by.
var otherNames = map[string]string{
	"yaml": "PyYAML", "PIL": "Pillow", "cv2": "opencv-python-headless", "sklearn": "scikit-learn", "bs4": "beautifulsoup4", "dateutil": "python-dateutil",
	"dotenv": "python-dotenv", "jwt": "PyJWT", "OpenSSL": "pyOpenSSL", "Crypto": "pycryptodome", "serial": "pyserial", "attr": "attrs", "psycopg2": "psycopg2-binary",
	"MySQLdb": "mysqlclient", "docx": "python-docx", "pptx": "python-pptx", "fitz": "PyMuPDF", "magic": "python-magic", "socks": "PySocks",
}

// nameIt says how code gets the package that it is told to miss; "" if that is not what is wrong.
func nameIt(message string) string {
	if noNative.MatchString(message) {
		return "a package's native part is fetched or compiled by its install script: deploy with --install-scripts"
	}
	if m := noPackage.FindStringSubmatch(message); m != nil {
		name := cmp.Or(otherNames[m[1]], m[1])
		return "name the package in requirements.txt beside the code, or with: --with " + name
	}
	if m := noModule.FindStringSubmatch(message); m != nil {
		return "name the package in package.json beside the code, or with: --with " + m[1]
	}
	if m := noHandler.FindStringSubmatch(message); m != nil {
		return "call it main, or say what is called: --handler " + m[1]
	}
	return ""
}

// NameMissing adds to an error of code that was run what names the package that it is told to miss.
func NameMissing(err error) error {
	e, ok := errors.AsType[*faas.Error](err)
	if !ok || e.Fix != "" || e.Code != faas.Failed {
		return err
	}
	if fix := nameIt(e.Message()); fix != "" {
		out := *e
		out.Fix = fix
		return &out
	}
	return err
}
