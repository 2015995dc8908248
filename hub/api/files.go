package api

import "time"

// UploadAddress is the hub's answer to a device that wants to upload a file: a
// request to https://{HostName}/{ContainerName}/{BlobName}{SASToken} writes it,
// with the name encoded. The token is a secret.
// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-file-upload
type UploadAddress struct {
	CorrelationID string `json:"correlationId"`
	HostName      string `json:"hostName"` // may carry a port, and the account as a path
	ContainerName string `json:"containerName"`
	BlobName      string `json:"blobName"` // begins with the device's id and a slash
	SASToken      string `json:"sasToken"` // begins with a question mark
}

// UploadCompletion is what a device says when it has uploaded, or has given up.
// The official clients send the correlation id in the address or in the body.
type UploadCompletion struct {
	CorrelationID     string `json:"correlationId"`
	IsSuccess         bool   `json:"isSuccess"`
	StatusCode        int    `json:"statusCode"`
	StatusDescription string `json:"statusDescription"`
}

// FileNotification says that a device has uploaded a file.
// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-file-upload
type FileNotification struct {
	DeviceID        string    `json:"deviceId"`
	BlobURI         string    `json:"blobUri"`
	BlobName        string    `json:"blobName"`
	LastUpdatedTime time.Time `json:"lastUpdatedTime"`
	BlobSizeInBytes int64     `json:"blobSizeInBytes"`
	EnqueuedTimeUTC time.Time `json:"enqueuedTimeUtc"`
}

// File is an uploaded file.
type File struct {
	Name         string    `json:"name"`     // without the device's id
	BlobName     string    `json:"blobName"` // with it
	Size         int64     `json:"size"`     // bytes
	ContentType  string    `json:"contentType,omitempty"`
	ETag         string    `json:"etag"`
	LastModified time.Time `json:"lastModified"`
}
