"""gramlet, the client: what a pretrained network knows about pictures, over gRPC."""
