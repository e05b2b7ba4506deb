"""Auto Scaling, which moto only pretends to do: groups that launch, check, replace and end their instances."""
