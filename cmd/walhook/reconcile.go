package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func newReconcileCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "reconcile",
		Short: "Compare the table with the recorded state, and fire what was missed",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := env.config(); err != nil {
				return err
			}
			return errors.New("not yet")
		},
	}
}
