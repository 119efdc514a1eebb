"""Laws over drawn sites, selections and lists of interventions."""
