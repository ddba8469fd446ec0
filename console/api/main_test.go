package api

import (
	"testing"

	"walhook/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }
