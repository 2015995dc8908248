package restfront

import (
	"net/http"
	"time"

	"github.com/fairlead-iot/fairlead/hub/internal/iot"
)

// feedbackRoutes are the REST form of the feedback link; clients differ in how
// they write it. https://learn.microsoft.com/rest/api/iothub/service/feedback
func (f *Front) feedbackRoutes() {
	for _, path := range []string{"/messages/serviceBound/feedback", "/messages/servicebound/feedback"} {
		f.route("GET "+path, iot.ServiceConnect, f.receiveFeedback)
		f.route("DELETE "+path+"/{lock}", iot.ServiceConnect, f.settleFeedback(iot.Complete))
		f.route("POST "+path+"/{lock}/abandon", iot.ServiceConnect, f.settleFeedback(iot.Abandon))
	}
}

// receiveFeedback gives what waits, with its lock as the ETag, or 204.
func (f *Front) receiveFeedback(*http.Request) (any, error) {
	batch := f.svc.ReceiveFeedback(time.Now())
	if batch == nil {
		return nil, nil
	}
	return tagged{batch.Records, batch.Lock}, nil
}

func (f *Front) settleFeedback(verdict iot.Verdict) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		return nil, f.svc.SettleFeedback(r.PathValue("lock"), verdict, time.Now())
	}
}
