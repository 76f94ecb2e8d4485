"""World models: frames and actions to the frames that follow, and plans made with them."""
