"""From desired and observed state to a plan, and to the plan that undoes it. Pure: nothing here does I/O."""
