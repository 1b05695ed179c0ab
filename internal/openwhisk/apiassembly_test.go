package openwhisk_test

import (
	"fmt"
	"strings"
	"testing"
)

// The description of an API says what upstream's gateway would do: clients' own tests and scripts that
// save it and send it again read that.
func TestAPITellsUpstreamsGateway(t *testing.T) {
	w := open(t, nil)
	w.web("books", "")
	const manage = "/api/v1/web/whisk.system/apimgmt/"
	create := func(path, method string) answer {
		return w.send("guest", "POST", manage+"createApi.http?responsetype=http&accesstoken=x&spaceguid=y", fmt.Sprintf(
			`{"apidoc":{"namespace":"guest","gatewayBasePath":"/club","gatewayPath":%q,"gatewayMethod":%q,"action":{"name":"books","namespace":"guest","backendMethod":"GET",
			"backendUrl":"http://example.test/api/v1/web/guest/default/books.http","authkey":"u:k"}}}`, path, method))
	}
	const url = "http://example.test/api/v1/web/guest/default/books.http"
	assembly := func(cases ...string) string {
		return `{"apis":[{"value":{"apidoc":{"x-ibm-configuration":{"cors":{"enabled":true},"assembly":{"execute":[{"operation-switch":{"case":[` + strings.Join(cases, ",") + `]}}]}}}}}]}`
	}
	one := func(id, url string) string {
		return fmt.Sprintf(`{"operations":[%q],"execute":[{"invoke":{"target-url":%q,"verb":"keep"}}]}`, id, url)
	}
	create("/books/{isbn}", "get")
	w.play([]step{{item: 224, method: "GET", path: manage + "getApi.http?basepath=/club", status: 200, want: assembly(one("getBooksIsbn", url+"$(request.path)"))}})
	create("/books", "post")
	w.play([]step{{item: 226, method: "GET", path: manage + "getApi.http?basepath=/club", status: 200,
		want: assembly(one("postBooks", url), one("getBooksIsbn", url+"$(request.path)"))}})

	for path, want := range map[string]string{"/path/with/sub_paths/in/it": "putPathWithSub_pathsInIt", "/": "put", "/éa": "putÉa"} {
		if a := create(path, "put"); !strings.Contains(a.body, `"operationId":"`+want+`"`) {
			t.Errorf("item 221: the operation of %s is not called %s: %s", path, want, a.body)
		}
	}

	// One that was sent whole is kept as it is, until an operation is added to it.
	sent := `{\"swagger\":\"2.0\",\"basePath\":\"/own\",\"info\":{\"title\":\"t\",\"version\":\"1\"},\"x-ibm-configuration\":{\"cors\":{\"enabled\":false},\"assembly\":{\"execute\":[]}},\"paths\":{\"/x\":{\"get\":{\"operationId\":\"g\",\"x-openwhisk\":{\"action\":\"books\",\"namespace\":\"guest\",\"package\":\"\",\"url\":\"u\"}}}}}`
	w.play([]step{
		{item: 227, method: "POST", path: manage + "createApi.http?accesstoken=x&spaceguid=y", body: `{"apidoc":{"namespace":"guest","swagger":"` + sent + `"}}`, status: 200,
			want: `{"apidoc":{"x-ibm-configuration":{"cors":{"enabled":false},"assembly":{"execute":[]}}}}`},
		{item: 226, method: "POST", path: manage + "createApi.http?responsetype=http&accesstoken=x&spaceguid=y",
			body: `{"apidoc":{"namespace":"guest","gatewayBasePath":"/own","gatewayPath":"/y","gatewayMethod":"get","action":{"name":"books","namespace":"guest","backendMethod":"GET","backendUrl":"v.http"}}}`, status: 200,
			want: `{"apidoc":{"x-ibm-configuration":{"cors":{"enabled":false},"assembly":{"execute":[{"operation-switch":{"case":[` + one("g", "u") + `,` + one("getY", "v.http") + `]}}]}}}}`},
	})
}

// An API is made at its base path, whatever others are called.
func TestAPIsAreMadeAtTheirBasePath(t *testing.T) {
	w := open(t, nil)
	w.web("books", "")
	for base, name := range map[string]string{"/first": "/second", "/second": "/first"} {
		w.play([]step{{item: 226, method: "POST", path: "/api/v1/web/whisk.system/apimgmt/createApi.http?accesstoken=x&spaceguid=y", status: 200,
			body: fmt.Sprintf(`{"apidoc":{"namespace":"guest","apiName":%q,"gatewayBasePath":%q,"gatewayPath":"/p","gatewayMethod":"get",
			"action":{"name":"books","namespace":"guest","backendMethod":"GET","backendUrl":"v.http"}}}`, name, base),
			want: fmt.Sprintf(`{"gwApiUrl":"~%s","apidoc":{"basePath":%q,"info":{"title":%q}}}`, base, base, name)}})
	}
}
