package main

import (
	"fmt"
	"net/http"
	"os"
)

const version = "0"

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, version, " ", os.Getenv("GREETING"))
	})
	panic(http.ListenAndServe(":"+os.Getenv("PORT"), nil))
}
