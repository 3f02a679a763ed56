"""What a network costs: MACs and weights by kind, on two independent roads, and the views papers print."""
