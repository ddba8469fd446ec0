package testenv

import (
	"testing"
	"time"
)

const patience = 20 * time.Second

func TestMain(m *testing.M) { Main(m) }
