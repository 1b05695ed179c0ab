package api

import (
	"net/http"

	"github.com/brasa-dev/brasa/internal/faas"
)

// statusCanceled is what others call "client closed request". Nobody is left to read it; it is
// for records and for the rare caller that canceled a call through another connection.
const statusCanceled = 499

// statuses maps what became of an operation to the status of HTTP.
var statuses = [...]int{
	faas.OK:              http.StatusOK,
	faas.Invalid:         http.StatusBadRequest,
	faas.TooLarge:        http.StatusRequestEntityTooLarge,
	faas.NotFound:        http.StatusNotFound,
	faas.Conflict:        http.StatusConflict,
	faas.Unauthenticated: http.StatusUnauthorized,
	faas.Denied:          http.StatusForbidden,
	faas.Overloaded:      http.StatusTooManyRequests,
	faas.Canceled:        statusCanceled,
	faas.Failed:          http.StatusBadGateway,
	faas.Crashed:         http.StatusBadGateway,
	faas.Timeout:         http.StatusGatewayTimeout,
	faas.Unavailable:     http.StatusServiceUnavailable,
	faas.Internal:        http.StatusInternalServerError,
}

// StatusOf returns the status of HTTP for a code.
func StatusOf(code faas.Code) int {
	if int(code) < len(statuses) {
		return statuses[code]
	}
	return http.StatusInternalServerError
}
