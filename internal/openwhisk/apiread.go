package openwhisk

import (
	"encoding/json"
	"strings"
)

// apiCreate is what clients send to make an API, or an operation of one.
type apiCreate struct {
	Name     string            `json:"apiName"`
	BasePath string            `json:"gatewayBasePath"`
	Path     string            `json:"gatewayPath"`
	Method   string            `json:"gatewayMethod"`
	Swagger  json.RawMessage   `json:"swagger"`
	Params   []json.RawMessage `json:"pathParameters"`
	Action   struct {
		Name          string `json:"name"`
		Namespace     string `json:"namespace"`
		BackendMethod string `json:"backendMethod"`
		BackendURL    string `json:"backendUrl"`
		Key           string `json:"authkey"`
		Secret        any    `json:"secureKey"`
	} `json:"action"`
}

// readAPI reads what was sent; its field apidoc may be an object, or the text of one.
func readAPI(b []byte) (*apiCreate, error) {
	var in struct {
		Doc json.RawMessage `json:"apidoc"`
	}
	if json.Unmarshal(b, &in) != nil {
		return nil, errNotJSON
	}
	d := &apiCreate{}
	if len(in.Doc) > 0 && json.Unmarshal(unquoted(in.Doc), d) != nil {
		return nil, errNotJSON
	}
	return d, nil
}

// unquoted is a JSON value, or what the text of a string is.
func unquoted(v json.RawMessage) []byte {
	var s *string
	if json.Unmarshal(v, &s) == nil && s != nil {
		return []byte(*s)
	}
	return v
}

// readSwagger reads a description that was sent whole.
func readSwagger(text []byte) (swaggerDoc, error) {
	var doc swaggerDoc
	if err := json.Unmarshal(text, &doc); err != nil {
		return doc, badAPI("its description is no JSON of Swagger: %v", err)
	}
	switch {
	case !strings.HasPrefix(doc.BasePath, "/"):
		return doc, badAPI("its description has no basePath that begins with a slash")
	case doc.Info.Title == "":
		return doc, badAPI("its description has no info.title")
	case len(doc.Paths) == 0:
		return doc, badAPI("its description has no paths")
	}
	for path := range doc.Paths {
		if !strings.HasPrefix(path, "/") {
			return doc, badAPI("the path %.80q does not begin with a slash", path)
		}
	}
	if doc.Swagger == "" {
		doc.Swagger = "2.0"
	}
	return doc, nil
}
