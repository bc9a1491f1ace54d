package resource

import (
	"context"
	"errors"

	godbus "github.com/godbus/dbus/v5"
)

func dialNothing(context.Context) (*godbus.Conn, error) { return nil, errors.New("nobody listens") }
