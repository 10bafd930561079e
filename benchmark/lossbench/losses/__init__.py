"""One function a loss, in modules by kind; `reduce` is their vocabulary, `contract` what each must keep."""
