package host_test

func strangerServe()     {}
func unregisteredServe() {}
func hostRole() int      { return 0 }
