# A static binary, an unnamed user, no shell.
FROM golang:1.26 AS build
ARG VERSION=dev
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/walhook ./cmd/walhook \
 && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o /out/receiver ./examples/compose/receiver

FROM scratch AS receiver
COPY --from=build /out/receiver /receiver
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/receiver"]

FROM scratch AS walhook
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/walhook /walhook
USER 65532:65532
EXPOSE 9464
ENTRYPOINT ["/walhook"]
CMD ["run"]
