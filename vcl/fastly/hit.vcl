# @scope: hit
# fetch.vcl caches a failure of the origin for a second, with the body that came
# with it, because vcl_fetch cannot write a body. For a hit on such an object,
# or on a shield's response to a failure, error.vcl makes the response, with a
# random wait for each client.

if (req.http.Headwater-Path == "stream" && obj.http.Headwater-Shed ~ "^(kept|edge)$") {
  error 690 "Headwater shed";
}
